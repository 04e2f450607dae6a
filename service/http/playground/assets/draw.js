/** Draw a digit, and watch the probabilities while the pen moves. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Code } from "./code.js";
import { EXAMPLES, centred, drawStrokes, penWidth, showPixels } from "./digits.js";
import { Announce, Bars, ErrorBox, ModelPicker, percent, useChoice, useLatest } from "./ui.js";

const PAD = 560; // pixels of the canvas, twice what is seen, for sharp lines

/** @param {{models: import("./ui.js").Model[], scheme: string}} props `scheme` is that of the colours, with which the pad is drawn again */
export function Draw({ models, scheme }) {
  const choice = useChoice(
    models,
    (model) => model.pair === "image -> labels",
    ({ reader }) => reader.height === 28 && reader.width === 28 && reader.mode === "L",
    "mnist-cnn",
  );
  const [strokes, setStrokes] = useState(/** @type {import("./digits.js").Stroke[]} */ ([]));
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const pad = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const seen = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const model = choice.chosen;

  const { answer, error, submit, reset } = useLatest(async (rows) => {
    const body = { model: model.name, images: [rows], top_k: model.labels.length };
    const { predictions } = await getJson("/classify", { json: body, onSend: setSent });
    return predictions[0];
  });

  useEffect(() => {
    const pen = pad.current?.getContext("2d");
    if (!pen || !pad.current || !seen.current) return;
    pen.clearRect(0, 0, PAD, PAD);
    pen.strokeStyle = getComputedStyle(pad.current).color;
    drawStrokes(pen, strokes, PAD, penWidth(PAD));
    const rows = centred(strokes);
    showPixels(seen.current, rows);
    if (rows && model) submit(rows);
    else reset();
  }, [strokes, model?.name, scheme]);

  const drawing = usePen(pad, setStrokes);
  return html`<div class="columns">
    <section class="panel" aria-labelledby="pad-title">
      <h2 id="pad-title">Draw a digit</h2>
      <canvas ref=${pad} class="pad" width=${PAD} height=${PAD} role="img"
        aria-label="Drawing pad for mouse, pen or finger. The buttons below draw examples." ...${drawing}></canvas>
      <div class="reading">
        <figure class="seen"><canvas ref=${seen} width="28" height="28" role="img" aria-label="The drawing as the model sees it"></canvas>
          <figcaption>What it sees: 28 × 28, centred and scaled as MNIST does</figcaption></figure>
        <p class="verdict" data-testid="digit"><span>${answer ? answer.label : "–"}</span><small>${answer ? percent(answer.probability) : "draw something"}</small></p>
      </div>
      <div class="row">
        <button type="button" onClick=${() => setStrokes([])} disabled=${!strokes.length}>Clear</button>
        <button type="button" class="quiet" onClick=${() => setStrokes(strokes.slice(0, -1))} disabled=${!strokes.length}>Undo</button>
      </div>
      <div class="row tight" role="group" aria-label="Draw an example">
        <span class="muted">Example</span>
        ${EXAMPLES.map(
          (example, digit) => html`<button key=${digit} type="button" class="small" aria-label=${`Draw a ${digit}`} onClick=${() => setStrokes(example)}>${digit}</button>`,
        )}
      </div>
    </section>
    <section class="panel" aria-labelledby="answer-title">
      <h2 id="answer-title">What the model says</h2>
      <${ModelPicker} ...${choice} need="reads drawings of 28 × 28 grey pixels (“Picture” is for models of other sizes)" />
      <${ErrorBox} error=${error} />
      ${model &&
      html`<${Bars} keepOrder caption="Probability of each label"
        items=${answer?.top ?? model.labels.map((/** @type {string} */ label) => ({ label, probability: 0 }))} />`}
      <${Announce} text=${answer ? `${answer.label}, ${percent(answer.probability)}` : ""} />
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** The events of a canvas on which a pointer draws. @param {{current: HTMLCanvasElement | null}} pad @param {any} setStrokes */
function usePen(pad, setStrokes) {
  const down = useRef(false);
  /** @param {PointerEvent} event */
  function points(event) {
    const box = /** @type {HTMLCanvasElement} */ (pad.current).getBoundingClientRect();
    const merged = event.getCoalescedEvents?.() ?? [];
    return (merged.length ? merged : [event]).map((each) => ({
      x: (each.clientX - box.left) / box.width,
      y: (each.clientY - box.top) / box.height,
    }));
  }
  return {
    onPointerDown(/** @type {PointerEvent} */ event) {
      if (event.button > 0) return;
      event.preventDefault();
      /** @type {Element} */ (event.target).setPointerCapture(event.pointerId);
      down.current = true;
      const start = points(event);
      setStrokes((/** @type {any[]} */ strokes) => [...strokes, start]);
    },
    onPointerMove(/** @type {PointerEvent} */ event) {
      if (!down.current) return;
      const more = points(event);
      setStrokes((/** @type {any[]} */ strokes) => [...strokes.slice(0, -1), [...(strokes.at(-1) ?? []), ...more]]);
    },
    onPointerUp: () => void (down.current = false),
    onPointerCancel: () => void (down.current = false),
  };
}
