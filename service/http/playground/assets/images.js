/** Generate pictures: a grid from a seed, and the way from one picture to another. */
import { html, useEffect, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Code } from "./code.js";
import { Announce, ErrorBox, ModelPicker, NumberField, Slider, useChoice, useLatest } from "./ui.js";

const STEPS = 16;

/** @param {string} png base64 */
const address = (png) => `data:image/png;base64,${png}`;

/** @param {{models: import("./ui.js").Model[]}} props */
export function Images({ models }) {
  const choice = useChoice(models, (model) => model.pair === "tensors -> image", (details) => details.requests?.routes.includes("/generate"));
  const [seed, setSeed] = useState(1);
  const [count, setCount] = useState(24);
  const [truncation, setTruncation] = useState(2);
  const [seedTo, setSeedTo] = useState(2);
  const [position, setPosition] = useState(0);
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const model = choice.chosen;
  const most = Math.min(model?.limits.max_items ?? 64, 64);
  const narrow = truncation < 2 ? { truncation } : {};

  const grid = useLatest(async () => {
    const body = { model: model.name, seed, count: Math.min(count, most), ...narrow };
    return (await getJson("/generate", { json: body, onSend: setSent })).images;
  });
  const morph = useLatest(async (/** @type {boolean} */ quietly) => {
    const body = { model: model.name, seed, seed_to: seedTo, steps: Math.min(STEPS, most), ...narrow };
    return (await getJson("/generate", { json: body, onSend: quietly ? undefined : setSent })).images;
  });
  useEffect(() => void (model && (grid.submit(), morph.submit(true))), [model?.name, seed, count, truncation]);
  useEffect(() => void (model && morph.submit(false)), [seedTo]);
  const way = /** @type {string[] | null} */ (morph.answer);
  const at = way ? Math.min(position, way.length - 1) : 0;

  return html`<div class="columns">
    <section class="panel" aria-labelledby="images-title">
      <h2 id="images-title">Generate pictures</h2>
      <${ModelPicker} ...${choice} need="generates pictures" />
      <div class="row">
        <${NumberField} label="Seed" value=${seed} min=${0} onInput=${setSeed} />
        <button type="button" class="primary" onClick=${() => setSeed(Math.floor(Math.random() * 2 ** 31))}>Others</button>
      </div>
      <${Slider} label="Pictures" value=${Math.min(count, most)} min=${1} max=${most} step=${1} onInput=${setCount} />
      <${Slider} label="Truncation" value=${truncation} min=${0.2} max=${2} step=${0.1} onInput=${setTruncation}
        shows=${(/** @type {number} */ value) => (value < 2 ? value.toFixed(1) : "off")} />
      <p class="hint">A lower truncation gives more typical and less varied pictures. The same seed gives the same pictures.</p>
    </section>
    <section class="panel" aria-labelledby="grid-title" aria-busy=${grid.busy}>
      <h2 id="grid-title">Pictures of seed ${seed}</h2>
      <${ErrorBox} error=${grid.error} />
      <div class="grid" data-testid="grid">${(grid.answer ?? []).map((/** @type {string} */ png, /** @type {number} */ i) => html`<img key=${i} src=${address(png)} alt=${`Picture ${i} of seed ${seed}`} />`)}</div>
      <${Announce} text=${grid.answer ? `${/** @type {any} */ (grid.answer).length} pictures` : ""} />
    </section>
    <section class="panel wide" aria-labelledby="morph-title" aria-busy=${morph.busy}>
      <h2 id="morph-title">From one to another</h2>
      <${ErrorBox} error=${morph.error} />
      <div class="morph">
        ${way && html`<img class="large" data-testid="morph" src=${address(way[at])} alt=${`Step ${at + 1} of ${way.length} from seed ${seed} to seed ${seedTo}`} />`}
        <div>
          <${NumberField} label=${`From the first picture of seed ${seed} to that of seed`} value=${seedTo} min=${0} onInput=${setSeedTo} />
          <${Slider} label="Step" value=${at} min=${0} max=${(way?.length ?? STEPS) - 1} step=${1} onInput=${setPosition}
            shows=${(/** @type {number} */ value) => `${value + 1} of ${way?.length ?? STEPS}`} />
          <div class="strip">${(way ?? []).map(
            (png, i) => html`<button key=${i} type="button" class=${i === at ? "chosen" : ""} aria-label=${`Step ${i + 1}`} aria-pressed=${i === at} onClick=${() => setPosition(i)}><img src=${address(png)} alt="" /></button>`,
          )}</div>
        </div>
      </div>
    </section>
    <${Code} sent=${sent} />
  </div>`;
}
