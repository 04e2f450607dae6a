/** One prediction of any head, in the form that suits it. */
import { html } from "./vendor.js";
import { Bars, percent, short } from "./ui.js";
import { formatJson } from "./code.js";

const MAX_JSON = 20_000; // characters on the page

/** @param {{prediction: any, details: any}} props */
export function Prediction({ prediction, details }) {
  if (prediction.top) return html`<${Bars} items=${prediction.top} caption="Most probable labels" />`;
  if (prediction.labels)
    return prediction.labels.length
      ? html`<${Bars} items=${prediction.labels} caption="Labels that reach the threshold" />`
      : html`<p class="muted">No label reaches the threshold.</p>`;
  if (prediction.values) {
    const units = Object.fromEntries((details.head.names ?? []).map((/** @type {string} */ name, /** @type {number} */ i) => [name, details.head.units?.[i] ?? ""]));
    return html`<dl class="facts">${Object.entries(prediction.values).map(
      ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${short(/** @type {number} */ (value))} ${units[name] ?? ""}</dd></div>`,
    )}</dl>`;
  }
  if (prediction.image) return html`<img class="picture" alt="The picture that the model answers" src=${`data:image/png;base64,${prediction.image}`} />`;
  if (prediction.tokens?.map)
    return html`<p class="words">${prediction.tokens.map(
      (/** @type {any} */ token) => html`<span class="word" title=${percent(token.probability)}>${token.text} <small>${token.label}</small></span> `,
    )}</p>`;
  if (prediction.embedding)
    return html`<p>A vector of ${prediction.embedding.length} numbers:</p>
      <pre tabindex="0" role="region" aria-label="The vector"><code>${prediction.embedding.map(short).join(", ")}</code></pre>`;
  const text = formatJson(prediction.outputs ?? prediction);
  return html`<pre tabindex="0" role="region" aria-label="The answer"><code>${text.slice(0, MAX_JSON)}${text.length > MAX_JSON ? "\n… and more" : ""}</code></pre>`;
}

/** What a prediction says, in a few words, for screen readers. @param {any} prediction */
export function inWords(prediction) {
  if (!prediction) return "";
  if (prediction.label) return `${prediction.label}, ${percent(prediction.probability)}`;
  if (prediction.values) return Object.entries(prediction.values).map(([name, value]) => `${name} ${short(/** @type {number} */ (value))}`).join(", ");
  return "The answer is here.";
}
