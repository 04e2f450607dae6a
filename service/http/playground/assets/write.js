/** Generate text: a prompt or a chat, tokens as they come, and how probable each was. */
import { html, useEffect, useRef, useState } from "./vendor.js";
import { ServiceError, streamEvents } from "./api.js";
import { Code } from "./code.js";
import { Tokens } from "./tokens.js";
import { ErrorBox, Field, ModelPicker, NumberField, Slider, useChoice } from "./ui.js";

const SHOWN_CHOICES = 5;

/** @typedef {{text: string, logprob: number | null, top: [string, number][]}} Token */

/**
 * The tokens of an event of a completion or a chat; their texts end to end are the text of the event.
 * @param {any} choice @returns {Token[]}
 */
export function tokensOf(choice) {
  const text = choice.text ?? choice.delta?.content ?? "";
  const chat = choice.logprobs?.content;
  const tokens = chat
    ? chat.map((/** @type {any} */ each) => ({ text: each.token, logprob: each.logprob, top: each.top_logprobs.map((/** @type {any} */ one) => [one.token, one.logprob]) }))
    : (choice.logprobs?.tokens ?? []).map((/** @type {string} */ token, /** @type {number} */ i) => ({
        text: token,
        logprob: choice.logprobs.token_logprobs[i],
        top: Object.entries(choice.logprobs.top_logprobs?.[i] ?? {}),
      }));
  for (const token of tokens) token.top.sort((/** @type {any} */ a, /** @type {any} */ b) => b[1] - a[1]);
  // A token of half a character, or a stop text that was cut off: the text as it came, without numbers of its own.
  if (tokens.map((/** @type {Token} */ token) => token.text).join("") === text) return tokens;
  return text ? [{ text, logprob: null, top: [] }] : [];
}

/** @param {{models: import("./ui.js").Model[]}} props */
export function Write({ models }) {
  const choice = useChoice(models, (model) => model.pair === "text -> language-model");
  const [prompt, setPrompt] = useState("A function");
  const [options, setOptions] = useState({ temperature: 0.7, top_p: 1, top_k: 0, max_tokens: 80, seed: 1 });
  const [isChat, setChat] = useState(false);
  const [history, setHistory] = useState(/** @type {{role: string, content: string}[]} */ ([]));
  const [tokens, setTokens] = useState(/** @type {Token[]} */ ([]));
  const [state, setState] = useState(/** @type {"idle" | "streaming" | "stopped" | "done"} */ ("idle"));
  const [reason, setReason] = useState("");
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [sent, setSent] = useState(/** @type {import("./api.js").Sent | null} */ (null));
  const abort = useRef(/** @type {AbortController | null} */ (null));
  const model = choice.chosen;
  const chats = Boolean(model?.head.chat_template);
  const context = model?.limits.max_steps ?? 256;
  const set = (/** @type {string} */ name) => (/** @type {number} */ value) => setOptions({ ...options, [name]: value });
  useEffect(() => setChat(chats), [chats]);
  useEffect(() => () => abort.current?.abort(), []);

  async function generate() {
    const controller = (abort.current = new AbortController());
    setTokens([]);
    setError(null);
    setReason("");
    setState("streaming");
    const messages = [...history, { role: "user", content: prompt }];
    if (isChat) setHistory(messages);
    const asked = isChat ? { messages, logprobs: true, top_logprobs: SHOWN_CHOICES } : { prompt, logprobs: SHOWN_CHOICES };
    const json = { model: model.name, ...asked, ...options, stream: true };
    let written = "";
    try {
      for await (const data of streamEvents(isChat ? "/v1/chat/completions" : "/v1/completions", { json, signal: controller.signal, onSend: setSent })) {
        if (data === "[DONE]") break;
        const event = JSON.parse(data);
        if (event.error) throw new ServiceError(event.error.status ?? 500, event, "");
        const part = event.choices[0];
        if (!part) continue;
        const more = tokensOf(part);
        written += more.map((token) => token.text).join("");
        setTokens((/** @type {Token[]} */ so_far) => [...so_far, ...more]);
        if (part.finish_reason) setReason(part.finish_reason);
      }
      setState("done");
    } catch (problem) {
      if (/** @type {Error} */ (problem).name === "AbortError") setState("stopped");
      else {
        setError(problem);
        setState("idle");
      }
    }
    if (isChat && written) {
      setHistory([...messages, { role: "assistant", content: written }]);
      setPrompt("");
    }
  }

  const streaming = state === "streaming";
  const told = { idle: "", streaming: "Writing…", stopped: `Stopped after ${tokens.length} tokens.`, done: `${tokens.length} tokens; ${endOf(reason)}` }[state];
  return html`<div class="columns">
    <form class="panel" aria-labelledby="prompt-title" onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), streaming || generate())}>
      <h2 id="prompt-title">${isChat ? "Chat" : "Give it a beginning"}</h2>
      <${ModelPicker} ...${choice} need="writes text" />
      ${chats &&
      html`<label class="check"><input type="checkbox" checked=${isChat} onChange=${() => (setChat(!isChat), setHistory([]))} /><span>Chat, with the model's own template</span></label>`}
      <${Field} label=${isChat ? "Message" : "Prompt"} hint="Ctrl and Enter sends it.">${(/** @type {any} */ attributes) => html`<textarea ...${attributes} rows="3" value=${prompt} required onInput=${(/** @type {any} */ event) => setPrompt(event.target.value)}
          onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && !streaming && prompt && model && generate()}></textarea>`}<//>
      <${Slider} label="Temperature" value=${options.temperature} min=${0} max=${2} step=${0.05} onInput=${set("temperature")} />
      <${Slider} label="Top p" value=${options.top_p} min=${0.05} max=${1} step=${0.05} onInput=${set("top_p")} />
      <${Slider} label="Top k" value=${options.top_k} min=${0} max=${100} step=${1} onInput=${set("top_k")} shows=${(/** @type {number} */ value) => (value ? String(value) : "all")} />
      <${Slider} label="Length, in tokens" value=${Math.min(options.max_tokens, context - 1)} min=${1} max=${Math.min(context - 1, 1024)} step=${1} onInput=${set("max_tokens")} />
      <${NumberField} label="Seed" value=${options.seed} min=${0} onInput=${set("seed")} />
      <div class="row">
        ${streaming
          ? html`<button key="stop" type="button" class="stop" onClick=${() => abort.current?.abort()}>Stop</button>`
          : html`<button key="go" type="submit" class="primary" disabled=${!model || !prompt}>Generate</button>`}
        ${isChat && history.length > 0 && html`<button type="button" class="quiet" disabled=${streaming} onClick=${() => (setHistory([]), setTokens([]), setState("idle"))}>New chat</button>`}
      </div>
    </form>
    <section class="panel" aria-labelledby="written-title" aria-busy=${streaming}>
      <h2 id="written-title">What it writes</h2>
      <${ErrorBox} error=${error} />
      ${isChat && history.slice(0, state === "done" || state === "stopped" ? -1 : undefined).map((message, i) => html`<p key=${i} class=${`message ${message.role}`}><b>${message.role === "user" ? "You" : "Model"}</b> ${message.content}</p>`)}
      ${tokens.length
        ? html`<${Tokens} tokens=${tokens} prompt=${isChat ? "" : /** @type {any} */ (sent)?.json.prompt} streaming=${streaming} />`
        : !error && html`<p class="empty">${streaming ? "…" : "The text appears here, token by token."}</p>`}
      <p class="hint" role="status" data-testid="told">${told}</p>
    </section>
    <${Code} sent=${sent} />
  </div>`;
}

/** @param {string} reason */
const endOf = (reason) => (reason === "length" ? "the length that you chose is reached." : "the model ended the text.");
