/** Paste or draw a series, and see what the model says after each step. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { LineChart } from "./chart.js";
import { Code } from "./code.js";
import { VOWEL } from "./examples.js";
import { Prediction, inWords } from "./prediction.js";
import { Announce, ErrorBox, Field, ModelPicker, useChoice, useLatest } from "./ui.js";

const MAX_LINES = 5;
const DRAWN_STEPS = 24;

/**
 * The steps of a series in JSON, [[…channels], …steps] or a request that holds one, or in CSV, one step a line.
 * @param {string} text @param {number} channels @returns {number[][]}
 */
export function parseSeries(text, channels) {
  const steps = /^\s*[[{]/.test(text) ? fromJson(text) : fromCsv(text);
  if (!steps.length) throw new Error("Expected at least one step.");
  steps.forEach((step, i) => {
    if (!Array.isArray(step) || step.length !== channels)
      throw new Error(`Step ${i + 1}: expected ${channels} numbers, got ${Array.isArray(step) ? step.length : JSON.stringify(step)}.`);
    const odd = step.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
    if (odd >= 0) throw new Error(`Step ${i + 1}, channel ${odd + 1}: expected a number.`);
  });
  return steps;
}

/** @param {string} text @returns {any[]} */
function fromJson(text) {
  let value = JSON.parse(text);
  if (!Array.isArray(value)) value = value.sequences?.[0];
  if (Array.isArray(value?.[0]?.[0])) value = value[0];
  if (!Array.isArray(value)) throw new Error("Expected a list of steps: [[…channels], …].");
  return value.map((/** @type {unknown} */ step) => (typeof step === "number" ? [step] : step));
}

/** @param {string} text */
function fromCsv(text) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const rows = lines.map((line) => line.trim().split(/[,;\t ]+/).map((cell) => (cell === "" ? NaN : Number(cell))));
  return rows.length > 1 && rows[0].every(Number.isNaN) ? rows.slice(1) : rows; // a header
}

/** @param {{models: import("./ui.js").Model[]}} props */
export function Series({ models }) {
  const choice = useChoice(models, (model) => (model.pair ?? "").startsWith("series ->"), undefined, "vowels-lstm-stateful");
  const [text, setText] = useState("");
  const [channel, setChannel] = useState(0);
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const model = choice.chosen;
  const channels = model?.reader.channels ?? 0;
  let steps = /** @type {number[][]} */ ([]);
  let fault = "";
  try {
    if (text.trim() && channels) steps = parseSeries(text, channels);
  } catch (error) {
    fault = /** @type {Error} */ (error).message;
  }

  const { answer, error, busy, submit, reset } = useLatest(async (/** @type {number[][]} */ series) => {
    const options = model.labels ? { top_k: model.labels.length } : {};
    const { predictions } = await getJson("/predict", { json: { model: model.name, sequences: [series], ...options }, onSend: setSent });
    if (!predictions[0].top || series.length < 2) return { prediction: predictions[0], ends: [], prefixes: [] };
    const ends = spread(series.length, model.limits.max_items);
    const after = await getJson("/predict", { json: { model: model.name, sequences: ends.map((end) => series.slice(0, end)), ...options } });
    return { prediction: predictions[0], ends, prefixes: after.predictions };
  });
  useEffect(() => {
    if (model && !text) setText(format(channels === VOWEL[0].length ? VOWEL : wave(channels)));
  }, [model?.name]);
  useEffect(() => {
    if (!model || !text || fault || !steps.length) reset();
    else submit(steps);
  }, [model?.name, text]);

  const range = Math.max(1, ...steps.flat().map(Math.abs));
  const drawn = (/** @type {number} */ index, /** @type {number} */ value) => {
    const next = steps.length ? steps.map((step) => [...step]) : wave(channels);
    next[index][channel] = value;
    setText(format(next));
  };
  return html`<div class="columns">
    <section class="panel" aria-labelledby="series-title">
      <h2 id="series-title">Give it a series</h2>
      <${ModelPicker} ...${choice} need="reads series of numbers" />
      ${model &&
      html`<${Curve} steps=${steps.length ? steps : wave(channels)} channel=${Math.min(channel, channels - 1)} range=${range} onDraw=${drawn} />
        ${channels > 1 &&
        html`<${Field} label="Channel to draw">${(/** @type {any} */ attributes) => html`<select ...${attributes} value=${channel} onChange=${(/** @type {any} */ event) => setChannel(Number(event.target.value))}>
            ${Array.from({ length: channels }, (_, i) => html`<option key=${i} value=${i}>${i + 1} of ${channels}</option>`)}</select>`}<//>`}
        <${Field} label=${`Steps, as CSV or JSON, ${channels} numbers each`}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} class="mono" rows="6" spellcheck="false" value=${text}
          aria-invalid=${fault !== ""} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>`}<//>
        ${fault && html`<p class="error" role="alert">${fault}</p>`}
        <div class="row">
          <button type="button" class="quiet" disabled=${channels !== VOWEL[0].length} onClick=${() => setText(format(VOWEL))}>A spoken vowel</button>
          <button type="button" class="quiet" onClick=${() => setText(format(wave(channels)))}>Flat line</button>
        </div>`}
    </section>
    <section class="panel" aria-labelledby="series-answer" aria-busy=${busy}>
      <h2 id="series-answer">What the model says</h2>
      <${ErrorBox} error=${error} />
      ${answer &&
      answer.prefixes.length > 0 &&
      html`<${LineChart} title="Probability after each step" lines=${linesOf(answer)} max=${1} xLabel=${`step ${answer.ends.at(-1)}`} />`}
      ${answer ? html`<${Prediction} prediction=${answer.prediction} details=${model} />` : !error && html`<p class="empty">The answer appears here.</p>`}
      <${Announce} text=${inWords(answer?.prediction)} />
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {number[][]} steps one a line */
const format = (steps) => steps.map((step) => step.join(", ")).join("\n");

/** @param {number} channels */
const wave = (channels) => Array.from({ length: DRAWN_STEPS }, () => new Array(channels).fill(0));

/** At most `limit` of the numbers 1 to `length`, evenly, with the last one. @param {number} length @param {number} limit */
const spread = (length, limit) => [
  ...new Set(Array.from({ length: Math.min(length, limit) }, (_, i, all = Math.min(length, limit)) => Math.ceil(((i + 1) * length) / all))),
];

/** The labels that were ever most probable, as lines over the steps. @param {{prefixes: any[]}} answer */
function linesOf({ prefixes }) {
  const peak = /** @type {Map<string, number>} */ (new Map());
  for (const each of prefixes) for (const { label, probability } of each.top) peak.set(label, Math.max(peak.get(label) ?? 0, probability));
  const labels = [...peak].sort((a, b) => b[1] - a[1]).slice(0, MAX_LINES).map(([label]) => label);
  const last = prefixes.at(-1).label;
  if (labels.includes(last)) labels.unshift(...labels.splice(labels.indexOf(last), 1));
  return labels.map((label) => ({ name: label, values: prefixes.map((each) => each.top.find((/** @type {any} */ one) => one.label === label).probability) }));
}

/** One channel as a curve that a pointer changes. @param {{steps: number[][], channel: number, range: number, onDraw: (index: number, value: number) => void}} props */
function Curve({ steps, channel, range, onDraw }) {
  const down = useRef(false);
  const x = (/** @type {number} */ i) => (600 * (i + 0.5)) / steps.length;
  const y = (/** @type {number} */ value) => 80 - (70 * value) / range;
  /** @param {any} event */
  function draw(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const index = Math.floor((steps.length * (event.clientX - box.left)) / box.width);
    const value = ((80 - (160 * (event.clientY - box.top)) / box.height) * range) / 70;
    if (index >= 0 && index < steps.length) onDraw(index, Number(Math.min(range, Math.max(-range, value)).toFixed(3)));
  }
  const others = steps[0].map((_, i) => i).filter((i) => i !== channel);
  const line = (/** @type {number} */ i) => steps.map((step, t) => `${t ? "L" : "M"}${x(t).toFixed(1)} ${y(step[i]).toFixed(1)}`).join("");
  return html`<svg class="curve" viewBox="0 0 600 160" role="img"
    aria-label=${`Channel ${channel + 1} over ${steps.length} steps. Draw on it with a pointer, or edit the numbers below.`}
    onPointerDown=${(/** @type {any} */ event) => ((down.current = true), event.currentTarget.setPointerCapture(event.pointerId), draw(event))}
    onPointerMove=${(/** @type {any} */ event) => down.current && draw(event)}
    onPointerUp=${() => (down.current = false)} onPointerCancel=${() => (down.current = false)}>
    <line class="grid" x1="0" x2="600" y1="80" y2="80" />
    ${others.map((i) => html`<path key=${i} class="line faint" d=${line(i)} />`)}
    <path class="line c0" d=${line(channel)} />
    ${steps.map((step, t) => html`<circle key=${t} class="dot c0" cx=${x(t)} cy=${y(step[channel])} r="4" />`)}
  </svg>`;
}
