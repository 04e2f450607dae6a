/** The models: state, version, proof, card. */
import { html, useEffect, useState } from "./vendor.js";
import { getBlob, getJson, getText } from "./api.js";
import { Code } from "./code.js";
import { Markdown } from "./markdown.js";
import { ErrorBox, short } from "./ui.js";

/** @param {{models: import("./ui.js").Model[], refresh: () => void, loaded: boolean}} props */
export function Models({ models, loaded }) {
  const [name, setName] = useState("");
  const [sent, setSent] = useState(/** @type {any} */ ({ method: "GET", path: "/models" }));
  const chosen = models.find((model) => model.name === name) ?? models[0];
  return html`<div class="columns models">
    <section class="panel" aria-labelledby="models-title">
      <h2 id="models-title">Models</h2>
      ${loaded && !models.length && html`<p class="empty">There is no model.</p>`}
      <ul class="model-list">${models.map(
        (model) => html`<li key=${model.name}><button type="button" aria-pressed=${model === chosen} onClick=${() => setName(model.name)}>
          <span class="model-name">${model.name}</span> <${State} state=${model.state} />
          <span class="hint">${model.state === "READY" ? (model.pair ?? "").replace("->", "→") : model.reason ?? "not known yet"}</span></button></li>`,
      )}</ul>
    </section>
    ${chosen && html`<${Details} key=${chosen.name} model=${chosen} setSent=${setSent} />`}
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {{state: string}} props */
export function State({ state }) {
  const kind = state === "READY" ? "good" : state === "FAILED" ? "bad" : "wait";
  return html`<span class=${`state ${kind}`}>${state}</span>`;
}

/** @param {{model: import("./ui.js").Model, setSent: any}} props */
function Details({ model, setSent }) {
  const [details, setDetails] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  useEffect(() => {
    let current = true;
    getJson(`/models/${encodeURIComponent(model.name)}`, { onSend: setSent }).then(
      (value) => current && (setDetails(value), setError(null)),
      (problem) => current && setError(problem),
    );
    return () => void (current = false);
  }, [model.name, model.version, model.state]);
  return html`<section class="panel" aria-labelledby="details-title">
    <h2 id="details-title">${model.name} <${State} state=${model.state} /></h2>
    <${ErrorBox} error=${error} />
    ${model.state !== "READY" && html`<p class="error" role="alert">It is not ready: ${model.reason ?? `it is ${model.state}`}</p>`}
    ${details?.summary && html`<p>${details.summary}</p>`}
    ${details?.next && html`<p>Next: version <code>${details.next.version ?? "?"}</code> is ${details.next.state}${details.next.reason ? `: ${details.next.reason}` : ""}</p>`}
    ${details?.inputs && html`<${Facts} details=${details} /><${Card} details=${details} />`}
  </section>`;
}

/** @param {{details: any}} props */
function Facts({ details }) {
  const { mutation, invariance, provenance, heartbeat } = details;
  const facts = [
    ["Version", html`<code>${details.version}</code>`],
    ["Runs on", `${details.device ?? ""} (${details.provider ?? "not loaded"})`],
    ["Takes → answers", details.pair.replace("->", "→")],
    ["Mutation score", mutation ? `${mutation.killed_at_export} of ${mutation.mutants} faulty graphs refused at export, ${mutation.killed_at_load} at load` : "not measured"],
    ["Batch invariance", invariance ? `${invariance.level}${invariance.level === "bitwise" ? ": not one bit depends on the batch" : `, within ${short(invariance.measured)}`}` : "not measured"],
    ["Trained on", provenance?.dataset],
    ["Health checks passed", heartbeat?.passed === undefined || heartbeat.passed === null ? "none yet" : `${heartbeat.passed}, every ${heartbeat.every_s} s`],
    ["Loaded in", details.load_s ? `${short(details.load_s)} s` : "not yet"],
  ].filter(([, value]) => value);
  const metrics = Object.entries(provenance?.metrics ?? {}).filter(([name]) => name.startsWith("test_"));
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
      ${metrics.map(([name, value]) => html`<div key=${name}><dt>${name.replaceAll("_", " ")}</dt><dd>${short(/** @type {number} */ (value))}</dd></div>`)}</dl>
    <h3>Parity with ${provenance?.reference ?? "the trained model"}</h3>
    <div class="scroll numbers" tabindex="0" role="region" aria-label="Parity"><table>
      <thead><tr><th scope="col">Output</th><th scope="col">at export</th><th scope="col">here</th><th scope="col">allowed</th></tr></thead>
      <tbody>${Object.entries(details.parity).map(
        ([name, parity]) => html`<tr key=${name}><th scope="row"><code>${name}</code></th><td>${short(/** @type {any} */ (parity).measured_at_export)}</td>
          <td>${/** @type {any} */ (parity).measured_here === null ? "–" : short(/** @type {any} */ (parity).measured_here)}</td>
          <td>${short(/** @type {any} */ (parity).atol)} + ${short(/** @type {any} */ (parity).rtol)} × value</td></tr>`,
      )}</tbody></table></div>`;
}

/** @param {{details: any}} props */
function Card({ details }) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState("");
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const base = `/models/${encodeURIComponent(details.name)}/card`;
  useEffect(() => {
    if (open && !text) getText(base).then(setText, setError);
  }, [open]);
  const picture = (/** @type {string} */ name, /** @type {string} */ title) => html`<${Plot} path=${`${base}/${name}`} title=${title} />`;
  return html`<details onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary>Model card, with plots</summary>
    <${ErrorBox} error=${error} />
    ${open && (text ? html`<${Markdown} text=${text} picture=${picture} />` : !error && html`<p class="muted">Loading…</p>`)}</details>`;
}

/** A plot of a bundle. It is fetched like everything else, because an element could not send the key. @param {{path: string, title: string}} props */
function Plot({ path, title }) {
  const [address, setAddress] = useState("");
  const [error, setError] = useState(/** @type {unknown} */ (null));
  useEffect(() => {
    let made = "";
    getBlob(path).then((blob) => setAddress((made = URL.createObjectURL(blob))), setError);
    return () => URL.revokeObjectURL(made);
  }, [path]);
  return html`<figure class="plot">${error ? html`<${ErrorBox} error=${error} />` : address ? html`<img src=${address} alt=${title} />` : null}
    <figcaption>${title}</figcaption></figure>`;
}
