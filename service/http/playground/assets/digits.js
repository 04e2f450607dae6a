/** Pictures of handwriting as MNIST has them, and strokes of example digits. */

/** @typedef {{x: number, y: number}[]} Stroke points from 0 to 1 */

const PEN = 0.075; // of the width of the pad
const SIZE = 28;
const BOX = 20; // MNIST scales the ink into a square of 20 pixels

/** @param {[number, number][][]} strokes @returns {Stroke[]} */
const points = (strokes) => strokes.map((stroke) => stroke.map(([x, y]) => ({ x: x / 100, y: y / 100 })));

/** @param {number} cx @param {number} cy @param {number} rx @param {number} ry @param {number} from @param {number} to in turns @returns {[number, number][]} */
function arc(cx, cy, rx, ry, from, to) {
  return Array.from({ length: 25 }, (_, i) => {
    const angle = 2 * Math.PI * (from + ((to - from) * i) / 24);
    return [cx + rx * Math.cos(angle), cy + ry * Math.sin(angle)];
  });
}

/** Strokes of each digit. @type {Stroke[][]} */
export const EXAMPLES = [
  points([arc(50, 50, 20, 32, -0.3, 0.72)]),
  points([[[55, 18], [50, 50], [46, 82]]]),
  points([[...arc(48, 34, 18, 16, -0.45, 0.08), [34, 78], [34, 80], [70, 79]]]),
  points([[...arc(47, 33, 17, 15, -0.42, 0.2), ...arc(47, 64, 20, 17, -0.22, 0.4)]]),
  points([[[36, 18], [30, 50], [70, 50]], [[64, 20], [61, 82]]]),
  points([[[68, 20], [38, 21], [36, 46], ...arc(47, 62, 21, 18, -0.3, 0.38)]]),
  points([[[62, 16], [44, 34], [34, 60], ...arc(49, 65, 16, 16, 0.5, 1.5)]]),
  points([[[30, 22], [70, 21], [57, 46], [46, 82]]]),
  points([[...arc(50, 34, 15, 15, 0.25, -0.75), ...arc(50, 66, 18, 17, -0.25, 0.75)]]),
  points([[...arc(48, 36, 17, 17, 0, 1), [64, 40], [60, 84]]]),
];

/** @param {number} width @param {number} height @returns {CanvasRenderingContext2D} */
function context(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}

/** @param {CanvasRenderingContext2D} pen @param {Stroke[]} strokes @param {number} scale @param {number} width @param {number} dx @param {number} dy */
export function drawStrokes(pen, strokes, scale, width, dx = 0, dy = 0) {
  pen.lineWidth = width;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    stroke.forEach(({ x, y }, i) => pen[i ? "lineTo" : "moveTo"](x * scale + dx, y * scale + dy));
    if (stroke.length === 1) pen.lineTo(stroke[0].x * scale + dx + 0.01, stroke[0].y * scale + dy);
    pen.stroke();
  }
}

/** @param {number} size of the pad in pixels */
export const penWidth = (size) => PEN * size;

/**
 * The strokes as MNIST would hold them: the ink fills a box of 20 pixels, and its centre of mass is the centre of 28 x 28.
 * @param {Stroke[]} strokes @returns {number[][] | null} rows of pixels 0 to 255; null without ink
 */
export function centred(strokes) {
  const all = strokes.flat();
  if (!all.length) return null;
  const xs = all.map((point) => point.x);
  const ys = all.map((point) => point.y);
  const left = Math.min(...xs) - PEN / 2;
  const top = Math.min(...ys) - PEN / 2;
  const extent = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)) + PEN;
  const scale = BOX / Math.max(extent, 0.2); // a dot stays a dot
  const width = Math.min(Math.max(PEN * scale, 1.8), 3);
  const draft = rendered(strokes, scale, width, 4 - left * scale, 4 - top * scale);
  let mass = 0;
  let sumX = 0;
  let sumY = 0;
  draft.forEach((row, y) => row.forEach((level, x) => ((mass += level), (sumX += level * (x + 0.5)), (sumY += level * (y + 0.5)))));
  const moveX = Math.round(SIZE / 2 - sumX / mass);
  const moveY = Math.round(SIZE / 2 - sumY / mass);
  return rendered(strokes, scale, width, 4 - left * scale + moveX, 4 - top * scale + moveY);
}

/** @param {Stroke[]} strokes @param {number} scale @param {number} width @param {number} dx @param {number} dy */
function rendered(strokes, scale, width, dx, dy) {
  const pen = context(SIZE, SIZE);
  pen.fillRect(0, 0, SIZE, SIZE);
  pen.strokeStyle = "white";
  drawStrokes(pen, strokes, scale, width, dx, dy);
  const { data } = pen.getImageData(0, 0, SIZE, SIZE);
  return Array.from({ length: SIZE }, (_, y) => Array.from({ length: SIZE }, (_, x) => data[4 * (SIZE * y + x)]));
}

/** Show rows of pixels on a canvas. @param {HTMLCanvasElement} canvas @param {number[][] | null} rows */
export function showPixels(canvas, rows) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = "black";
  pen.fillRect(0, 0, SIZE, SIZE);
  if (!rows) return;
  const image = pen.createImageData(SIZE, SIZE);
  rows.flat().forEach((level, i) => image.data.set([level, level, level, 255], 4 * i));
  pen.putImageData(image, 0, 0);
}
