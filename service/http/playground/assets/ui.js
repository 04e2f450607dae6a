/** Small parts that the views share. */
import { html, useEffect, useMemo, useRef, useState } from "./vendor.js";
import { ServiceError, describe, latest } from "./api.js";

/** @typedef {{name: string, version: string, state: string, pair: string | null, summary: string | null, reason: string | null}} Model */

/** @param {number} share 0 to 1 */
export const percent = (share) => (share > 0.9995 && share < 1 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);

/** @param {number} value three digits that count */
export const short = (value) => (Math.abs(value) >= 1e-3 || value === 0 ? String(Number(value.toPrecision(4))) : value.toExponential(1));

/**
 * Labels with their probabilities as bars, most probable first unless `keepOrder`.
 * @param {{items: {label: string, probability: number}[], keepOrder?: boolean, caption: string}} props
 */
export function Bars({ items, keepOrder = false, caption }) {
  const sorted = [...items].sort((a, b) => b.probability - a.probability);
  const rows = keepOrder ? [...items].sort((a, b) => a.label.localeCompare(b.label, "en", { numeric: true })) : sorted;
  return html`<ol class="bars" aria-label=${caption}>
    ${rows.map(
      (row) => html`<li key=${row.label} class=${row.label === sorted[0].label ? "best" : ""}>
        <span class="bar-label">${row.label}</span>
        <span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${100 * row.probability}%` }}></span></span>
        <span class="bar-number">${percent(row.probability)}</span>
      </li>`,
    )}
  </ol>`;
}

/** An error as the service gave it. @param {{error: unknown}} props */
export function ErrorBox({ error }) {
  if (!error) return null;
  const service = error instanceof ServiceError ? error : null;
  const hints = /** @type {Record<number, string>} */ ({
    401: "This service needs a key: enter it under “Key”, at the top of the page.",
    403: service?.scope ? `The key lacks the scope “${service.scope}”.` : "",
  });
  return html`<div class="error" role="alert">
    <p><strong>${service ? `${service.status}${service.code ? ` ${service.code}` : ""}` : "Error"}</strong> ${/** @type {Error} */ (error).message}</p>
    ${service && service.faults.length > 1 && html`<ul>${service.faults.map((fault) => html`<li><code>${fault.pointer}</code> ${fault.detail}</li>`)}</ul>`}
    ${service && hints[service.status] && html`<p>${hints[service.status]}</p>`}
  </div>`;
}

/** Text for screen readers, said when it has not changed for half a second. @param {{text: string}} props */
export function Announce({ text }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSaid(text), 500);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<p class="visually-hidden" role="status" aria-live="polite">${said}</p>`;
}

/**
 * The READY models that a view can use, with what the service says of them, and the chosen one.
 * @param {Model[]} models @param {(model: Model) => boolean} fits @param {(details: any) => boolean} [suits] @param {string} [favourite]
 */
export function useChoice(models, fits, suits = () => true, favourite = "") {
  const candidates = models.filter((model) => model.state === "READY" && fits(model));
  const id = candidates.map((model) => `${model.name}@${model.version}`).join();
  const [choices, setChoices] = useState(/** @type {any[] | null} */ (null));
  const [name, setName] = useState("");
  const [error, setError] = useState(/** @type {unknown} */ (null));
  useEffect(() => {
    let current = true;
    Promise.all(candidates.map(describe)).then(
      (all) => current && (setChoices(all.filter(suits)), setError(null)),
      (reason) => current && setError(reason),
    );
    return () => void (current = false);
  }, [id]);
  const chosen = choices?.find((each) => each.name === name) ?? choices?.find((each) => each.name === favourite) ?? choices?.[0] ?? null;
  return { choices, chosen, choose: setName, error };
}

/** @param {{choices: any[] | null, chosen: any, choose: (name: string) => void, error: unknown, need: string}} props */
export function ModelPicker({ choices, chosen, choose, error, need }) {
  if (error) return html`<${ErrorBox} error=${error} />`;
  if (choices === null) return html`<p class="muted" role="status">Looking for models…</p>`;
  if (!choices.length) return html`<p class="empty">No model is ready that ${need}. “Models” shows what is loading, and what failed.</p>`;
  return html`<${Field} label="Model" hint=${chosen?.summary}>${(/** @type {any} */ attributes) => html`<select ...${attributes} value=${chosen?.name} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
      ${choices.map((each) => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select>`}<//>`;
}

let lastField = 0;

/**
 * A labelled control. `children` makes it, with the attributes that tie it to its label and hint.
 * @param {{label: string, hint?: string, kind?: string, shown?: string, children?: (attributes: any) => unknown}} props `shown`: the value, beside the label
 */
export function Field({ label, hint = "", kind = "", shown = "", children }) {
  const id = useMemo(() => `field-${(lastField += 1)}`, []);
  return html`<div class=${`field ${kind}`}>
    <div class="field-head"><label for=${id}>${label}</label>${shown && html`<span aria-hidden="true">${shown}</span>`}</div>
    ${children?.({ id, "aria-describedby": hint ? `${id}-hint` : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
  </div>`;
}

/** @param {{label: string, value: number, min: number, max: number, step: number, onInput: (value: number) => void, shows?: (value: number) => string}} props */
export function Slider({ label, value, min, max, step, onInput, shows = String }) {
  return html`<${Field} label=${label} kind="slider" shown=${shows(value)}>${(/** @type {any} */ attributes) => html`<input ...${attributes} type="range"
      min=${min} max=${max} step=${step} value=${value} aria-valuetext=${shows(value)} onInput=${(/** @type {any} */ event) => onInput(Number(event.target.value))} />`}<//>`;
}

/** @param {{label: string, value: number | string, min?: number, max?: number, step?: number | string, onInput: (value: number) => void}} props */
export function NumberField({ label, value, min, max, step = 1, onInput }) {
  return html`<${Field} label=${label} kind="number">${(/** @type {any} */ attributes) => html`<input ...${attributes} type="number" value=${value} min=${min} max=${max} step=${step}
      onInput=${(/** @type {any} */ event) => event.target.value !== "" && onInput(Number(event.target.value))} />`}<//>`;
}

/**
 * A call of which the last one counts: one in flight, what came meanwhile is replaced by the newest.
 * @template T @param {(...args: any[]) => Promise<T>} call
 */
export function useLatest(call) {
  const [answer, setAnswer] = useState(/** @type {T | null} */ (null));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [busy, setBusy] = useState(false);
  const wanted = useRef(0);
  const run = useRef(call);
  run.current = call;
  const submit = useMemo(
    () =>
      latest(async (/** @type {number} */ turn, /** @type {any[]} */ args) => {
        const done = (/** @type {() => void} */ change) => turn === wanted.current && (change(), setBusy(false));
        await run.current(...args).then(
          (value) => done(() => (setAnswer(() => value), setError(null))),
          (reason) => done(() => (setAnswer(null), setError(reason))),
        );
      }),
    [],
  );
  return {
    answer,
    error,
    busy,
    submit: (/** @type {any[]} */ ...args) => {
      setBusy(true);
      submit((wanted.current += 1), args);
    },
    reset: () => {
      wanted.current += 1;
      setBusy(false);
      setAnswer(null);
      setError(null);
    },
  };
}
