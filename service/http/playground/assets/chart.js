/** Line charts as SVG, coloured by the style sheet. */
import { html } from "./vendor.js";
import { short } from "./ui.js";

/** @typedef {{name: string, values: (number | null)[]}} Line */

const WIDTH = 600;
const LEFT = 44;

/** @param {number} max a round number that is not below it */
function ceiling(max) {
  if (!(max > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(max));
  return /** @type {number} */ ([1, 2, 5, 10].find((factor) => factor * unit >= max * 0.999)) * unit;
}

/**
 * @param {{lines: Line[], title: string, height?: number, min?: number, max?: number, xLabel?: string, unit?: string}} props
 *   the first line is drawn in the first colour; a null leaves a gap
 */
export function LineChart({ lines, title, height = 200, min, max, xLabel = "", unit = "" }) {
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const low = min ?? Math.min(0, ...values);
  const high = max ?? (low < 0 ? Math.max(...values, 0) : ceiling(Math.max(...values, 0)));
  const count = Math.max(2, ...lines.map((line) => line.values.length));
  const bottom = height - 22;
  const x = (/** @type {number} */ i) => LEFT + ((WIDTH - LEFT - 10) * i) / (count - 1);
  const y = (/** @type {number} */ value) => bottom - ((bottom - 10) * (value - low)) / (high - low || 1);
  const ticks = [0, 0.5, 1].map((share) => low + share * (high - low));
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${height}`} role="img" aria-label=${summary(title, lines, unit)}>
      ${ticks.map(
        (tick) => html`<g key=${tick}><line class="grid" x1=${LEFT} x2=${WIDTH - 10} y1=${y(tick)} y2=${y(tick)} />
          <text class="tick" x=${LEFT - 6} y=${y(tick) + 4} text-anchor="end">${short(tick)}</text></g>`,
      )}
      ${lines.map((line, i) => html`<path key=${line.name} class=${`line c${i % 6}`} d=${path(line.values, x, y)} />`)}
      ${lines.map((line, i) =>
        line.values.length === 1 && line.values[0] !== null
          ? html`<circle class=${`dot c${i % 6}`} cx=${x(0)} cy=${y(line.values[0])} r="3" />`
          : null,
      )}
      <text class="tick" x=${WIDTH - 10} y=${height - 4} text-anchor="end">${xLabel}</text>
    </svg>
    ${lines.length > 1 &&
    html`<ul class="legend">${lines.map((line, i) => html`<li key=${line.name}><span class=${`swatch c${i % 6}`} aria-hidden="true"></span>${line.name}</li>`)}</ul>`}
  </figure>`;
}

/** @param {(number | null)[]} values @param {(i: number) => number} x @param {(value: number) => number} y */
function path(values, x, y) {
  let pen = "M";
  return values
    .map((value, i) => {
      if (value === null) {
        pen = "M";
        return "";
      }
      const step = `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
}

/** @param {string} title @param {Line[]} lines @param {string} unit */
function summary(title, lines, unit) {
  const last = lines.map((line) => {
    const value = line.values.findLast((each) => each !== null);
    return value === undefined || value === null ? `${line.name}: nothing yet` : `${line.name}: ${short(value)}${unit}`;
  });
  return `${title}. Now: ${last.join(", ")}`;
}
