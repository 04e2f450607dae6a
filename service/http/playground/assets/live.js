/** Rates, latencies and queues, as they are now. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { getText } from "./api.js";
import { LineChart } from "./chart.js";
import { Code } from "./code.js";
import { parseMetrics, quantile, rate, total } from "./metrics.js";
import { ErrorBox, short } from "./ui.js";

const EVERY_MS = 1000;
const SHOWN = 60; // points
const SENT = { method: "GET", path: "/metrics" };

/** @typedef {import("./metrics.js").Scrape} Scrape */

/** Requests that compute, not those of this page that look. @param {Record<string, string>} labels */
const computes = ({ route }) => !["/metrics", "/models", "/models/{model}", "/", "/readyz", "/livez"].includes(route) && !route.startsWith("/playground");

/** One point of each chart. @param {Scrape} before @param {Scrape} after */
function point(before, after) {
  const ms = (/** @type {string} */ name, /** @type {number} */ q, /** @type {any} */ fits) => {
    const value = quantile(before, after, name, q, fits);
    return value === null ? null : 1000 * value;
  };
  return {
    rate: rate(before, after, "ekiben_http_requests_total", computes),
    errors: rate(before, after, "ekiben_http_requests_total", (labels) => computes(labels) && labels.status >= "500"),
    p50: ms("ekiben_http_request_seconds", 0.5, computes),
    p99: ms("ekiben_http_request_seconds", 0.99, computes),
    queued: total(after, "ekiben_engine_queue_items"),
    flight: total(after, "ekiben_http_in_flight"),
    tokens: rate(before, after, "ekiben_generation_tokens_total"),
    memory: total(after, "process_resident_memory_bytes") / 2 ** 20,
  };
}

/** @param {Record<string, never>} _ */
export function Live(_) {
  const [points, setPoints] = useState(/** @type {any[]} */ ([]));
  const [scrape, setScrape] = useState(/** @type {Scrape | null} */ (null));
  const [paused, setPaused] = useState(false);
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const last = useRef(/** @type {Scrape | null} */ (null));
  useEffect(() => {
    if (paused) return undefined;
    let timer = 0;
    let current = true;
    async function look() {
      if (!document.hidden) {
        try {
          const samples = parseMetrics(await getText("/metrics"));
          if (!current) return;
          const now = { at: performance.now() / 1000, samples };
          const before = last.current;
          if (before) setPoints((/** @type {any[]} */ all) => [...all, point(before, now)].slice(-SHOWN));
          last.current = now;
          setScrape(now);
          setError(null);
        } catch (problem) {
          if (current) setError(problem);
        }
      } else last.current = null; // the next rate begins anew
      if (current) timer = setTimeout(look, EVERY_MS);
    }
    look();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [paused]);

  const line = (/** @type {string} */ name, /** @type {string} */ key) => ({ name, values: points.map((each) => each[key]) });
  const now = points.at(-1);
  const tiles = now
    ? [
        ["Requests a second", short(now.rate)],
        ["Median latency", now.p50 === null ? "–" : `${short(now.p50)} ms`],
        ["99th percentile", now.p99 === null ? "–" : `${short(now.p99)} ms`],
        ["In progress", String(now.flight)],
        ["Items queued", String(now.queued)],
        ["Memory", `${Math.round(now.memory)} MiB`],
      ]
    : [];
  return html`<div class="columns">
    <section class="panel wide" aria-labelledby="live-title">
      <div class="code-head"><h2 id="live-title">Live</h2>
        <button type="button" class="small" aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause"}</button></div>
      <p class="hint">From /metrics, each second while this page is visible. The page's own requests for models and metrics are left out.</p>
      <${ErrorBox} error=${error} />
      <dl class="tiles" data-testid="tiles">${tiles.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    </section>
    <section class="panel" aria-label="Rates"><${LineChart} title="Requests a second" lines=${[line("all", "rate"), line("failed (5xx)", "errors")]} xLabel="now" /></section>
    <section class="panel" aria-label="Latencies"><${LineChart} title="Latency, in milliseconds" lines=${[line("median", "p50"), line("99th percentile", "p99")]} xLabel="now" unit=" ms" /></section>
    <section class="panel" aria-label="Queues"><${LineChart} title="Waiting" lines=${[line("items queued", "queued"), line("requests in progress", "flight")]} xLabel="now" /></section>
    <section class="panel" aria-label="Tokens"><${LineChart} title="Generated tokens a second" lines=${[line("tokens", "tokens")]} xLabel="now" /></section>
    ${scrape && html`<${ByModel} scrape=${scrape} />`}
    <${Code} sent=${SENT} />
  </div>`;
}

/** @param {{scrape: Scrape}} props */
function ByModel({ scrape }) {
  const names = [...new Set(scrape.samples.filter((sample) => sample.name === "ekiben_engine_requests_total").map((sample) => sample.labels.model))].sort();
  const of = (/** @type {string} */ family, /** @type {string} */ model) => total(scrape, family, (labels) => labels.model === model);
  return html`<section class="panel wide" aria-labelledby="by-model"><h2 id="by-model">Since the start, by model</h2>
    <div class="scroll numbers" tabindex="0" role="region" aria-label="Numbers by model"><table>
      <thead><tr><th scope="col">Model</th><th scope="col">Requests</th><th scope="col">Batches</th><th scope="col">Mean compute</th></tr></thead>
      <tbody>${names.map((name) => {
        const batches = of("ekiben_engine_compute_seconds_count", name);
        return html`<tr key=${name}><th scope="row">${name}</th><td>${of("ekiben_engine_requests_total", name)}</td><td>${of("ekiben_engine_batches_total", name)}</td>
          <td>${batches ? `${short((1000 * of("ekiben_engine_compute_seconds_sum", name)) / batches)} ms` : "–"}</td></tr>`;
      })}</tbody></table></div></section>`;
}
