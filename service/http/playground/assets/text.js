/** Type a text; see its label change, and which words matter. */
import { html, useEffect, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Code } from "./code.js";
import { Prediction, inWords } from "./prediction.js";
import { Announce, ErrorBox, Field, ModelPicker, percent, useChoice, useLatest } from "./ui.js";

const WAIT_MS = 250;
const START = "Open a connection to the server, send the request headers and return the HTTP response.";

/** @param {string} text @returns {{text: string, start: number, end: number}[]} its words, as far as spaces tell */
export const wordsOf = (text) => [...text.matchAll(/\S+/gu)].map((match) => ({ text: match[0], start: match.index, end: match.index + match[0].length }));

/** @param {{models: import("./ui.js").Model[]}} props */
export function Text({ models }) {
  const choice = useChoice(models, (model) => /^text -> (?!language-model)/.test(model.pair ?? ""), undefined, "news-lstm");
  const [text, setText] = useState(START);
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const model = choice.chosen;

  const { answer, error, busy, submit, reset } = useLatest(async (/** @type {string} */ typed) => {
    const labels = model.head.kind === "labels";
    const whole = { model: model.name, texts: [typed], truncate: true, ...(labels ? { top_k: model.labels.length } : {}) };
    const { predictions } = await getJson("/predict", { json: whole, onSend: setSent });
    const words = labels ? wordsOf(typed).slice(0, model.limits.max_items) : [];
    if (words.length < 2) return { typed, prediction: predictions[0], words: [] };
    const texts = words.map(({ start, end }) => typed.slice(0, start) + typed.slice(end));
    const without = await getJson("/predict", { json: { ...whole, texts } });
    const { label, probability } = predictions[0];
    const falls = without.predictions.map((/** @type {any} */ each) => probability - each.top.find((/** @type {any} */ one) => one.label === label).probability);
    return { typed, prediction: predictions[0], words: words.map((word, i) => ({ ...word, fall: falls[i] })) };
  });

  useEffect(() => {
    if (!model) return undefined;
    if (!text.trim()) {
      reset();
      return undefined;
    }
    const timer = setTimeout(() => submit(text), WAIT_MS);
    return () => clearTimeout(timer);
  }, [text, model?.name]);

  return html`<div class="columns">
    <section class="panel" aria-labelledby="text-title">
      <h2 id="text-title">Type a text</h2>
      <${ModelPicker} ...${choice} need="reads texts" />
      <${Field} label="Text">${(/** @type {any} */ attributes) => html`<textarea ...${attributes} rows="7" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>`}<//>
    </section>
    <section class="panel" aria-labelledby="text-answer" aria-busy=${busy}>
      <h2 id="text-answer">What the model says</h2>
      <${ErrorBox} error=${error} />
      ${answer ? html`<${Prediction} prediction=${answer.prediction} details=${model} />` : !error && html`<p class="empty">The answer appears as you type.</p>`}
      <${Announce} text=${inWords(answer?.prediction)} />
      ${answer && answer.words.length > 0 && html`<${Influence} answer=${answer} />`}
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {{answer: any}} props */
function Influence({ answer }) {
  const { prediction, words, typed } = answer;
  const strongest = Math.max(0.01, ...words.map((/** @type {any} */ word) => Math.abs(word.fall)));
  const ranked = [...words].sort((a, b) => b.fall - a.fall);
  const tail = typed.slice(words.at(-1).end);
  return html`<section class="part" aria-labelledby="words-title">
    <h3 id="words-title">Which words matter</h3>
    <p class="hint">Each word is left out once. It is tinted by how much the probability of “${prediction.label}” falls without it.</p>
    <p class="words" data-testid="words">${words.map((/** @type {any} */ word, /** @type {number} */ i) => {
      const strength = Math.min(1, Math.abs(word.fall) / strongest);
      const level = strength < 0.05 ? 0 : Math.ceil(strength * 4);
      const gap = typed.slice(i ? words[i - 1].end : 0, word.start);
      return html`${gap}<span class=${`word ${word.fall < 0 ? "against" : "for"}${level}`} title=${points(word.fall)}>${word.text}</span>`;
    })}${tail && html`<span class="muted">${tail}</span>`}</p>
    <div class="legend-row" aria-hidden="true">
      <span class="word against4">against</span><span class="word against2"> </span><span class="word"> </span><span class="word for2"> </span><span class="word for4">for “${prediction.label}”</span>
    </div>
    <details><summary>As a table</summary>
      <table><caption class="visually-hidden">Words by how much the probability falls without them</caption>
        <thead><tr><th scope="col">Word</th><th scope="col">Probability without it</th><th scope="col">Change</th></tr></thead>
        <tbody>${ranked.map(
          (word) => html`<tr key=${word.start}><th scope="row">${word.text}</th><td>${percent(prediction.probability - word.fall)}</td><td>${points(word.fall)}</td></tr>`,
        )}</tbody></table></details>
  </section>`;
}

/** @param {number} fall */
const points = (fall) => `${fall > 0 ? "−" : "+"}${Math.abs(100 * fall).toFixed(1)} points`;
