/** Metrics of the service, as Prometheus reads them, and what two scrapes say. */

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */
/** @typedef {{at: number, samples: Sample[]}} Scrape `at` in seconds */

/** @param {string} text in the format of Prometheus @returns {Sample[]} */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    /** @type {Record<string, string>} */
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value.replaceAll('\\"', '"').replaceAll("\\\\", "\\");
    samples.push({ name: match[1], labels, value: match[3] === "+Inf" ? Infinity : Number(match[3]) });
  }
  return samples;
}

/** @param {Scrape} scrape @param {string} name @param {(labels: Record<string, string>) => boolean} [fits] */
export function total(scrape, name, fits = () => true) {
  return scrape.samples.reduce((sum, sample) => sum + (sample.name === name && fits(sample.labels) ? sample.value : 0), 0);
}

/** Events a second between two scrapes; a restart counts from 0. @param {Scrape} before @param {Scrape} after @param {string} name @param {(labels: Record<string, string>) => boolean} [fits] */
export function rate(before, after, name, fits) {
  const [from, to] = [total(before, name, fits), total(after, name, fits)];
  return (to >= from ? to - from : to) / Math.max(after.at - before.at, 0.001);
}

/**
 * A quantile of what a histogram counted between two scrapes, as Prometheus estimates it; null if that was nothing.
 * @param {Scrape} before @param {Scrape} after @param {string} name @param {number} q @param {(labels: Record<string, string>) => boolean} [fits]
 */
export function quantile(before, after, name, q, fits = () => true) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const [scrape, sign] of /** @type {[Scrape, number][]} */ ([[after, 1], [before, -1]]))
    for (const { name: each, labels, value } of scrape.samples) {
      if (each !== `${name}_bucket` || !fits(labels)) continue;
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  const bounds = [...counts].sort((a, b) => a[0] - b[0]);
  const all = bounds.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let low = 0;
  let below = 0;
  for (const [bound, count] of bounds) {
    if (count >= q * all) return bound === Infinity ? low : low + ((bound - low) * (q * all - below)) / Math.max(count - below, 1e-9);
    low = bound;
    below = count;
  }
  return low;
}
