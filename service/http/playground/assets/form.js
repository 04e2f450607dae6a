/** Any model: a form made of what GET /models/NAME says of it. */
import { html, useEffect, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Code, formatJson } from "./code.js";
import { Prediction, inWords } from "./prediction.js";
import { faultOf } from "./tensors.js";
import { Announce, ErrorBox, Field, ModelPicker, useChoice, useLatest } from "./ui.js";

/** @param {{models: import("./ui.js").Model[]}} props */
export function Form({ models }) {
  const table = (/** @type {any} */ model) => (model.pair ?? "").startsWith("table");
  const choice = useChoice(models, (model) => model.pair !== "text -> language-model", undefined, models.find(table)?.name);
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}));
  const [owner, setOwner] = useState("");
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const [fault, setFault] = useState("");
  const model = choice.chosen;
  const ready = model && owner === model.name;

  const { answer, error, busy, submit, reset } = useLatest(async (/** @type {any} */ payload) => {
    const options = model.head.kind === "labels" || model.head.kind === "token-labels" ? { top_k: model.labels.length } : {};
    const usable = Object.fromEntries(Object.entries(options).filter(([name]) => model.requests.fields.includes(name)));
    const { predictions } = await getJson("/predict", { json: { model: model.name, ...payload, ...usable }, onSend: setSent });
    return predictions;
  });
  useEffect(() => {
    if (!model) return;
    setValues(initial(model));
    setOwner(model.name);
    setFault("");
    reset();
  }, [model?.name, model?.version]);

  /** @param {Event} event */
  function send(event) {
    event.preventDefault();
    try {
      const payload = payloadOf(model, values);
      setFault("");
      submit(payload);
    } catch (problem) {
      setFault(/** @type {Error} */ (problem).message);
    }
  }
  const set = (/** @type {string} */ name, /** @type {string} */ value) => setValues({ ...values, [name]: value });
  return html`<div class="columns">
    <form class="panel" aria-labelledby="form-title" onSubmit=${send} noValidate=${ready && model.reader.kind !== "table"}>
      <h2 id="form-title">Fill in its inputs</h2>
      <${ModelPicker} ...${choice} need="answers /predict" />
      ${ready && html`<p class="hint">${model.pair.replace("->", "→")}</p>
        ${model.reader.kind === "table"
          ? html`<div class="fields">${model.reader.columns.map((/** @type {any} */ column) => html`<${Column} key=${column.name} column=${column} value=${values[column.name] ?? ""} set=${set} />`)}</div>`
          : Object.keys(values).map((name) => html`<${Input} key=${name} name=${name} model=${model} value=${values[name]} set=${set} />`)}
        <div class="row"><button type="submit" class="primary">Predict</button>
          <button type="button" class="quiet" onClick=${() => (setValues(initial(model)), setFault(""))}>Example</button></div>`}
      ${fault && html`<p class="error" role="alert">${fault}</p>`}
    </form>
    <section class="panel" aria-labelledby="form-answer" aria-busy=${busy}>
      <h2 id="form-answer">What the model says</h2>
      <${ErrorBox} error=${error} />
      ${answer ? /** @type {any[]} */ (answer).map((prediction, i) => html`<${Prediction} key=${i} prediction=${prediction} details=${model} />`) : !error && html`<p class="empty">The answer appears here.</p>`}
      <${Announce} text=${inWords(/** @type {any} */ (answer)?.[0])} />
      ${ready && html`<details><summary>What it takes and answers</summary>
        <pre tabindex="0" role="region" aria-label="JSON schemas"><code>${formatJson({ takes: model.requests.payload, answers: model.requests.prediction })}</code></pre></details>`}
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {{column: any, value: string, set: (name: string, value: string) => void}} props */
function Column({ column, value, set }) {
  const onInput = (/** @type {any} */ event) => set(column.name, event.target.value);
  if (column.kind === "category")
    return html`<${Field} label=${column.name}>${(/** @type {any} */ attributes) => html`<select ...${attributes} value=${value} onChange=${onInput}>
      ${column.values.map((/** @type {string} */ each) => html`<option key=${each} value=${each}>${each}</option>`)}</select>`}<//>`;
  const bounded = Math.abs(column.low) < 1e30 && Math.abs(column.high) < 1e30;
  return html`<${Field} label=${column.name} hint=${bounded ? `${column.low} to ${column.high}` : ""}>${(/** @type {any} */ attributes) => html`<input ...${attributes} type="number" step="any" required
    value=${value} min=${bounded ? column.low : undefined} max=${bounded ? column.high : undefined} onInput=${onInput} />`}<//>`;
}

/** @param {{name: string, model: any, value: string, set: (name: string, value: string) => void}} props */
function Input({ name, model, value, set }) {
  const spec = model.reader.kind === "tensors" && model.inputs.find((/** @type {any} */ each) => each.name === name);
  const isText = model.reader.kind === "text";
  const hint = spec ? `${spec.dtype} [${spec.shape.join(", ")}]` : (model.requests.payload[name]?.items?.description ?? "");
  return html`<${Field} label=${isText ? name : `${name}, as JSON`} hint=${hint}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} class=${isText ? "" : "mono"} rows="5"
    spellcheck="false" value=${value} onInput=${(/** @type {any} */ event) => set(name, event.target.value)}></textarea>`}<//>`;
}

/** What the form holds at first: the example of the service. @param {any} model @returns {Record<string, string>} */
function initial(model) {
  const { model: _, ...example } = model.requests.example ?? {};
  switch (model.reader.kind) {
    case "table":
      return Object.fromEntries(Object.entries(example.rows[0]).map(([name, value]) => [name, String(value)]));
    case "text":
      return { texts: example.texts[0] };
    case "tensors":
      return Object.fromEntries(model.inputs.map((/** @type {any} */ spec) => [spec.name, formatJson(example.tensors?.[spec.name] ?? [])]));
    default:
      return Object.fromEntries(Object.entries(example).map(([name, value]) => [name, formatJson(value)]));
  }
}

/** The payload of a request. @param {any} model @param {Record<string, string>} values */
function payloadOf(model, values) {
  switch (model.reader.kind) {
    case "table":
      return { rows: [Object.fromEntries(model.reader.columns.map((/** @type {any} */ column) => [column.name, column.kind === "category" ? values[column.name] : Number(values[column.name])]))] };
    case "text":
      return { texts: [values.texts] };
    case "tensors": {
      /** @type {Record<string, number>} */
      const axes = {};
      const tensors = Object.fromEntries(Object.entries(values).map(([name, text]) => [name, parsed(name, text)]));
      for (const spec of model.inputs) {
        const fault = faultOf(tensors[spec.name], spec, axes);
        if (fault) throw new Error(fault);
      }
      return { tensors };
    }
    default:
      return Object.fromEntries(Object.entries(values).map(([name, text]) => [name, parsed(name, text)]));
  }
}

/** @param {string} name @param {string} text */
function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch (problem) {
    throw new Error(`${name} is not JSON: ${/** @type {Error} */ (problem).message}`);
  }
}
