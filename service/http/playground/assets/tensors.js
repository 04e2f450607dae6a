/** Checks of tensors as nested lists, before they are sent. */

/** @typedef {{name: string, dtype: string, shape: (number | string)[]}} Spec */

/** @type {Record<string, [number, number]>} */
const WHOLE = {
  uint8: [0, 255], uint16: [0, 65535], uint32: [0, 2 ** 32 - 1], uint64: [0, 2 ** 64],
  int8: [-128, 127], int16: [-32768, 32767], int32: [-(2 ** 31), 2 ** 31 - 1], int64: [-(2 ** 63), 2 ** 63],
};

/**
 * What is wrong with a tensor, or "". A named axis has the same size wherever the inputs name it: `axes` remembers it.
 * @param {unknown} value @param {Spec} spec @param {Record<string, number>} axes
 */
export function faultOf(value, spec, axes) {
  return depth(value, spec, axes, 0, "");
}

/** @param {unknown} value @param {Spec} spec @param {Record<string, number>} axes @param {number} axis @param {string} place @returns {string} */
function depth(value, spec, axes, axis, place) {
  const where = `${spec.name}${place}`;
  if (axis === spec.shape.length) return entry(value, spec.dtype, where);
  if (!Array.isArray(value)) return `${where}: expected a list (axis ${axis + 1} of ${spec.shape.length}), got ${JSON.stringify(value)?.slice(0, 30)}`;
  const size = spec.shape[axis];
  const expected = typeof size === "number" ? size : (axes[size] ??= value.length);
  if (value.length !== expected)
    return `${where}: expected ${expected} ${typeof size === "string" ? `(${size}) ` : ""}entries, got ${value.length}`;
  for (let i = 0; i < value.length; i += 1) {
    const fault = depth(value[i], spec, axes, axis + 1, `${place}[${i}]`);
    if (fault) return fault;
  }
  return "";
}

/** @param {unknown} value @param {string} dtype @param {string} where */
function entry(value, dtype, where) {
  const got = JSON.stringify(value)?.slice(0, 30);
  if (dtype === "string") return typeof value === "string" ? "" : `${where}: expected a text, got ${got}`;
  if (dtype === "bool") return typeof value === "boolean" ? "" : `${where}: expected true or false, got ${got}`;
  if (typeof value !== "number") return `${where}: expected a number, got ${got}`;
  const range = WHOLE[dtype];
  if (range && !Number.isInteger(value)) return `${where}: expected a whole number, got ${got}`;
  if (range && (value < range[0] || value > range[1])) return `${where}: expected ${dtype}, from ${range[0]} to ${range[1]}, got ${got}`;
  return "";
}
