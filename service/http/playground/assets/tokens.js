/** Generated tokens, tinted by their probability; pointing at one, or moving with the arrow keys, shows what else it could have been. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { percent } from "./ui.js";

/** @typedef {import("./write.js").Token} Token */

/** @param {{tokens: Token[], prompt: string | undefined, streaming: boolean}} props */
export function Tokens({ tokens, prompt, streaming }) {
  const [chosen, setChosen] = useState(-1);
  const [entry, setEntry] = useState(0); // the token that the tab key reaches
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (tokens.length <= entry) setEntry(0);
    if (tokens.length <= chosen) setChosen(-1);
  }, [tokens.length]);

  /** @param {KeyboardEvent} event */
  function move(event) {
    const to = { ArrowRight: entry + 1, ArrowLeft: entry - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined || to < 0 || to >= tokens.length) return;
    event.preventDefault();
    setEntry(to);
    /** @type {HTMLElement} */ (list.current?.querySelector(`[data-token="${to}"]`)).focus();
  }
  const token = tokens[chosen];
  return html`<div class="written">
    <p class="generated" ref=${list} role="group" aria-label="Generated tokens. The arrow keys move between them." onKeyDown=${move} onMouseLeave=${() => setChosen(-1)}>
      ${prompt && html`<span class="prompt">${prompt}</span>`}${tokens.map(
        (each, i) => html`<span key=${i} class=${`token p${levelOf(each)} ${i === chosen ? "chosen" : ""}`} data-token=${i} role="button" tabindex=${i === entry ? 0 : -1}
          onMouseEnter=${() => setChosen(i)} onFocus=${() => (setChosen(i), setEntry(i))} onClick=${() => setChosen(i)} aria-label=${spoken(each)}>${each.text}</span>`,
      )}${streaming && html`<span class="caret" aria-hidden="true"></span>`}
    </p>
    <div class="alternatives" data-testid="alternatives">
      ${token && token.logprob !== null
        ? html`<h3><code>${visible(token.text)}</code> had a probability of ${percent(Math.exp(token.logprob))}</h3>
            <ol class="bars">${token.top.map(
              ([text, logprob]) => html`<li key=${text} class=${text === token.text ? "best" : ""}><span class="bar-label"><code>${visible(text)}</code></span>
                <span class="bar-track" aria-hidden="true"><span class="bar-fill" style=${{ width: `${100 * Math.exp(logprob)}%` }}></span></span>
                <span class="bar-number">${percent(Math.exp(logprob))}</span></li>`,
            )}</ol>`
        : html`<p class="hint">Point at a token, or move with the arrow keys, to see what else it could have been. Improbable tokens are tinted.</p>`}
    </div>
  </div>`;
}

/** @param {Token} token 0 (sure) to 3 (a surprise) */
function levelOf({ logprob }) {
  if (logprob === null) return 0;
  const probability = Math.exp(logprob);
  return probability > 0.5 ? 0 : probability > 0.2 ? 1 : probability > 0.05 ? 2 : 3;
}

/** @param {string} text */
const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎") || "∅";

/** @param {Token} token */
function spoken({ text, logprob }) {
  const name = text.trim() || (text.includes("\n") ? "line break" : "space");
  return logprob === null ? name : `${name}, ${percent(Math.exp(logprob))}`;
}
