/** Classify a picture: dropped, pasted, chosen or photographed. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { getJson } from "./api.js";
import { Code } from "./code.js";
import { Prediction, inWords } from "./prediction.js";
import { Announce, ErrorBox, ModelPicker, useChoice, useLatest } from "./ui.js";

const SENT_AS_IT_IS = ["image/png", "image/jpeg"];

/** @param {{models: import("./ui.js").Model[]}} props */
export function Picture({ models }) {
  const choice = useChoice(models, (model) => /^image -> (labels|multilabel|values|embedding|image|tensors)$/.test(model.pair ?? ""));
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [fit, setFit] = useState(true);
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const [shown, setShown] = useState("");
  const [over, setOver] = useState(false);
  const [scaled, setScaled] = useState("");
  const model = choice.chosen;

  const { answer, error, busy, submit } = useLatest(async () => {
    const picture = fit ? await fitted(/** @type {File} */ (file), model.reader) : { blob: /** @type {File} */ (file), change: "" };
    setScaled(picture.change);
    const limit = /labels$/.test(model.pair) && model.head.kind === "labels" ? `&top_k=${Math.min(5, model.labels.length)}` : "";
    const { predictions } = await getJson(`/predict?model=${encodeURIComponent(model.name)}${limit}`, {
      body: picture.blob,
      fileName: picture.change ? "picture.png" : /** @type {File} */ (file).name,
      onSend: setSent,
    });
    return predictions[0];
  });

  useEffect(() => {
    if (file && model) submit();
  }, [file, model?.name, fit]);
  useEffect(() => {
    if (!file) return undefined;
    const address = URL.createObjectURL(file);
    setShown(address);
    return () => URL.revokeObjectURL(address);
  }, [file]);
  useEffect(() => {
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const pasted = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (pasted) setFile(pasted);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);

  const drop = {
    onDragOver: (/** @type {DragEvent} */ event) => (event.preventDefault(), setOver(true)),
    onDragLeave: () => setOver(false),
    onDrop: (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      setOver(false);
      if (event.dataTransfer?.files[0]) setFile(event.dataTransfer.files[0]);
    },
  };
  return html`<div class="columns">
    <section class="panel" aria-labelledby="picture-title">
      <h2 id="picture-title">Give it a picture</h2>
      <div class=${`drop ${over ? "over" : ""}`} ...${drop}>
        ${shown ? html`<img src=${shown} alt="The picture that you chose" />` : html`<p>Drop a picture here, paste one, or choose a file.</p>`}
      </div>
      <div class="row">
        <label class="button">Choose a file
          <input type="file" class="visually-hidden" accept="image/*" onChange=${(/** @type {any} */ event) => setFile(event.target.files[0] ?? file)} /></label>
        <${Camera} onPhoto=${setFile} />
      </div>
      <label class="check"><input type="checkbox" checked=${fit} onChange=${(/** @type {any} */ event) => setFit(event.target.checked)} />
        <span>Make it fit in this page. The service itself scales only what the model's training scaled.</span></label>
      ${scaled && file && fit && html`<p class="hint">${scaled}</p>`}
    </section>
    <section class="panel" aria-labelledby="labels-title" aria-busy=${busy}>
      <h2 id="labels-title">What the model says</h2>
      <${ModelPicker} ...${choice} need="reads pictures" />
      ${model && html`<p class="hint">Takes ${sizeOf(model.reader)}${model.reader.mode === "L" ? ", grey" : ", colour"}.</p>`}
      <${ErrorBox} error=${error} />
      ${answer ? html`<${Prediction} prediction=${answer} details=${model} />` : !error && html`<p class="empty">The answer appears here.</p>`}
      <${Announce} text=${inWords(answer)} />
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {any} reader */
function sizeOf(reader) {
  if (reader.resize) return "pictures of any size";
  return `pictures of ${reader.height ?? "any"} × ${reader.width ?? "any"} pixels (height × width)`;
}

/**
 * The picture in a form that the model takes: the file itself where that will do, else a PNG that is cut to the middle and scaled.
 * @param {File} file @param {any} reader
 */
async function fitted(file, reader) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return { blob: file, change: "" }; // the service says what is wrong with it
  const width = reader.resize ? bitmap.width : (reader.width ?? bitmap.width);
  const height = reader.resize ? bitmap.height : (reader.height ?? bitmap.height);
  if (SENT_AS_IT_IS.includes(file.type) && bitmap.width === width && bitmap.height === height) return { blob: file, change: "" };
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "white"; // behind transparent parts
  pen.fillRect(0, 0, width, height);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  pen.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  const blob = await new Promise((/** @type {(blob: Blob) => void} */ done) => canvas.toBlob((made) => done(/** @type {Blob} */ (made)), "image/png"));
  return { blob, change: `Sent as a PNG of ${width} × ${height} pixels; yours has ${bitmap.width} × ${bitmap.height}.` };
}

/** @param {{onPhoto: (file: File) => void}} props */
function Camera({ onPhoto }) {
  const [stream, setStream] = useState(/** @type {MediaStream | null} */ (null));
  const [problem, setProblem] = useState("");
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const stop = () => stream?.getTracks().forEach((track) => track.stop());
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
    return stop;
  }, [stream]);

  async function start() {
    if (!navigator.mediaDevices) {
      setProblem("Browsers lend the camera only to pages over HTTPS or on this machine. “Choose a file” can take a photo on a phone.");
      return;
    }
    setProblem("");
    await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).then(setStream, (error) => setProblem(`No camera: ${error.message}`));
  }
  function shoot() {
    const source = /** @type {HTMLVideoElement} */ (video.current);
    const canvas = Object.assign(document.createElement("canvas"), { width: source.videoWidth, height: source.videoHeight });
    canvas.getContext("2d")?.drawImage(source, 0, 0);
    canvas.toBlob((blob) => blob && onPhoto(new File([blob], "photo.png", { type: "image/png" })), "image/png");
    setStream(null);
  }
  if (!stream)
    return html`<button type="button" class="quiet" onClick=${start}>Use the camera</button>
      ${problem && html`<p class="hint" role="status">${problem}</p>`}`;
  return html`<div class="camera"><video ref=${video} autoplay playsinline muted aria-label="The camera"></video>
    <div class="row"><button type="button" onClick=${shoot}>Take the picture</button>
      <button type="button" class="quiet" onClick=${() => setStream(null)}>Cancel</button></div></div>`;
}
