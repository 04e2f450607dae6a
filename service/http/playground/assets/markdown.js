/** The part of Markdown that cards of models use, as elements: nothing of a card is ever read as HTML. */
import { html } from "./vendor.js";

/** @param {{text: string, picture: (name: string, title: string) => unknown}} props `picture` shows a file of the bundle */
export function Markdown({ text, picture }) {
  return html`<div class="card-text">${blocks(text).map((block, i) => html`<${Block} key=${i} block=${block} picture=${picture} />`)}</div>`;
}

/** Paragraphs, tables and headings, which blank lines separate. @param {string} text */
const blocks = (text) => text.split(/\n{2,}/).map((block) => block.trim()).filter(Boolean);

/** @param {{block: string, picture: (name: string, title: string) => unknown}} props */
function Block({ block, picture }) {
  const heading = /^(#{1,6}) (.*)$/.exec(block);
  if (heading) return heading[1].length <= 2 ? html`<h4>${inline(heading[2])}</h4>` : html`<h5>${inline(heading[2])}</h5>`;
  const shown = /^!\[([^\]]*)\]\(([\w.-]+)\)$/.exec(block);
  if (shown) return picture(shown[2], shown[1]);
  const lines = block.split("\n");
  if (lines.every((line) => line.startsWith("|")) && lines.length > 1) return html`<${Table} lines=${lines} />`;
  if (lines.every((line) => /^[-*] /.test(line))) return html`<ul>${lines.map((line) => html`<li>${inline(line.slice(2))}</li>`)}</ul>`;
  if (block.startsWith("```")) return html`<pre tabindex="0" role="region" aria-label="Example"><code>${lines.slice(1, -1).join("\n")}</code></pre>`;
  return html`<p>${inline(block)}</p>`;
}

/** @param {{lines: string[]}} props */
function Table({ lines }) {
  const [head, , ...rows] = lines.map((line) => line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim().replaceAll("\\|", "|")));
  const named = head.some(Boolean);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${named ? `Table: ${head.filter(Boolean).join(", ").replaceAll("`", "")}` : "Table"}><table>
    ${named && html`<thead><tr>${head.map((cell) => (cell ? html`<th scope="col">${inline(cell)}</th>` : html`<td></td>`))}</tr></thead>`}
    <tbody>${rows.map((row) => html`<tr>${row.map((cell, i) => (i ? html`<td>${inline(cell)}</td>` : html`<th scope="row">${inline(cell)}</th>`))}</tr>`)}</tbody>
  </table></div>`;
}

/** Code, bold and the texts of links. @param {string} text @returns {unknown[]} */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/).map((part) => {
    if (part.startsWith("`") && part.length > 2) return html`<code>${part.slice(1, -1)}</code>`;
    if (part.startsWith("**") && part.length > 4) return html`<strong>${part.slice(2, -2)}</strong>`;
    return /^\[([^\]]+)\]\(/.exec(part)?.[1] ?? part;
  });
}
