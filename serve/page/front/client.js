// Talking to the server. Every failure becomes a Problem in words; a server that is slow, gone or unreachable is said
// within SLOW_MS, whatever was asked.

import { styles } from './dom.js';

export const SLOW_MS = 4000;
const LAST_MS = 120000;
const LOOK_MS = 2000;
const STILL_MS = 4000;

/** What went wrong: `title` and `text` for people, `detail` for whoever looks behind the fold, `kind` for the page. */
export class Problem extends Error {
  constructor(kind, title, text, detail = '', more = {}) {
    super(title);
    Object.assign(this, { kind, title, text, detail }, more);
  }
}

/** How the server is: `state` is ok, slow, gone or offline; a `change` event says when that changes. */
class Health extends EventTarget {
  state = 'ok';
  waiting = new Set();

  set(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event('change'));
    if (state === 'gone' || state === 'offline') this.look();
  }

  /** Asks until the server answers again. */
  async look() {
    if (this.looking) return;
    this.looking = true;
    while (this.state === 'gone' || this.state === 'offline') {
      await new Promise(resolve => setTimeout(resolve, LOOK_MS));
      if (navigator.onLine && await this.answers()) this.set('ok');
    }
    this.looking = false;
  }

  async answers() {
    try {
      return (await fetch('health', { signal: AbortSignal.timeout(STILL_MS), cache: 'no-store' })).ok;
    } catch {
      return false;
    }
  }

  /** Looks whether the server is there, because something that it should have sent did not come. */
  async doubt() {
    if (this.state !== 'ok' || this.doubting) return;
    this.doubting = true;
    if (!await this.answers()) this.set(navigator.onLine ? 'gone' : 'offline');
    this.doubting = false;
  }
}

export const health = new Health();
addEventListener('offline', () => health.set('offline'));
addEventListener('online', () => health.look());

/** Sends a request -> the JSON of its answer. Raises Problem, and AbortError where `signal` was aborted. */
export async function ask(path, { method = 'GET', json, form, signal, patient = false } = {}) {
  return (await send(path, { method, json, form, signal, patient })).json();
}

/** As `ask`, but gives the response, for what is no JSON. `patient`: it may take long without that being said. */
export async function send(path, { method = 'GET', json, form, signal, patient = false } = {}) {
  const leaving = new AbortController();
  const signals = [leaving.signal, AbortSignal.timeout(LAST_MS * (patient ? 10 : 1)), ...(signal ? [signal] : [])];
  const slow = patient ? 0 : setTimeout(() => { health.waiting.add(leaving); if (health.state === 'ok') health.set('slow'); }, SLOW_MS);
  try {
    const answer = await fetch(path, {
      method,
      body: form || (json === undefined ? undefined : JSON.stringify(json)),
      headers: json === undefined ? {} : { 'content-type': 'application/json' },
      signal: AbortSignal.any(signals),
    });
    if (!answer.ok) throw await refused(answer, path);
    health.set('ok');
    return answer;
  } catch (error) {
    if (error instanceof Problem) { health.set('ok'); throw error; }
    if (error.name === 'AbortError') throw error;
    if (error.name === 'TimeoutError') throw new Problem('late', 'The server did not answer', 'It was asked ' + LAST_MS / 1000 + ' seconds ago. Try again.', String(error));
    health.set(navigator.onLine ? 'gone' : 'offline');
    throw unreachable(path, error);
  } finally {
    clearTimeout(slow);
    health.waiting.delete(leaving);
    if (!health.waiting.size && health.state === 'slow') health.set('ok');
  }
}

/** Gives up every request that has been waited for. */
export function giveUp() {
  for (const leaving of health.waiting) leaving.abort();
}

function unreachable(path, error) {
  const detail = path.split('?')[0] + ': ' + error;
  if (!navigator.onLine) return new Problem('offline', 'You are offline', 'This page goes on as soon as there is a network again.', detail);
  return new Problem('gone', 'The server does not answer', 'It may have been stopped, or the network is down. This page looks every two seconds whether it is back. Your query stays as it is.', detail);
}

const TITLES = {
  bad_where: 'The filter cannot be read',
  bad_query: 'This query cannot be searched for',
  invalid_request: 'This request cannot be read',
  unknown_item: 'This item is gone',
  unusable_medium: 'This file cannot be used',
  read_only: 'This library cannot be changed',
  too_large: 'This is too large',
  too_late: 'This took too long',
  no_picture: 'There is no picture of this',
};
const WORDS = {
  unknown_item: 'It has left the library, or its file has changed since it was indexed.',
  too_late: 'Try again; a smaller file or fewer terms are quicker.',
  read_only: 'The server was started with --read-only.',
};

async function refused(answer, path) {
  const detail = answer.status + ' ' + answer.statusText + ', ' + path.split('?')[0];
  let told = {};
  try {
    told = await answer.json();
  } catch {
    return new Problem('failed', 'Something went wrong in the server', 'Its log says more. Try again.', detail);
  }
  const error = told.error || {};
  const whole = detail + '\n' + (error.code || '') + ': ' + (error.message || '');
  if (answer.status === 401) return new Problem('signed-out', 'You are no longer signed in', 'Load the page again to sign in.', whole);
  if (answer.status === 429) {
    return new Problem('busy', 'The server is busy', 'It has as much to do as it takes at once.', whole, { retryAfterS: Number(answer.headers.get('retry-after')) || 2 });
  }
  if (answer.status >= 500 && !TITLES[error.code]) {
    return new Problem('failed', answer.status === 503 ? 'The library cannot be used at the moment' : 'Something went wrong in the server', 'Its log says more. Try again.', whole);
  }
  const text = WORDS[error.code] || sentence(error.message || '');
  return new Problem('failed', TITLES[error.code] || 'The server refused this', text, whole, { code: error.code, message_: error.message || '', readAs: told.read_as || [] });
}

/** The server's words as a sentence, without the name of an exception, which the technical details keep. */
export function sentence(text) {
  const plain = text.replace(/^(search|query|where|term \d+): /, '').replace(/:? *\b[A-Z]\w*(Error|Exception|Warning)\(.*$/s, '');
  return plain ? plain[0].toUpperCase() + plain.slice(1) + (/[.!?^]$/.test(plain) ? '' : '.') : '';
}

/** Calls a function of the page (see functions.py) -> its object. Raises as `ask`. */
export async function call(name, ...given) {
  const answer = await ask('gradio_api/run/' + name, { method: 'POST', json: { data: given } });
  const [found] = answer.data;
  if (found.problem) throw new Problem(found.problem.kind, found.problem.title, found.problem.text, name, { retryAfterS: found.problem.retry_after_s });
  return found;
}

/** A path with parameters; null, '' and false are left out, lists are repeated. */
export function withParameters(path, parameters) {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== '' && one !== false) given.append(key, one);
  }
  return given.size ? path + '?' + given : path;
}

const tries = new Map();   // module -> how often it could not be loaded

/** Loads a part of the page, with its look, when it is first needed. Raises Problem. */
export async function lazy(name) {
  await styles();
  // A browser does not try again to load a module that it could not load, unless it has another address.
  const again = tries.has(name) ? '?again=' + tries.get(name) : '';
  try {
    return await import(name + again);
  } catch (error) {
    tries.set(name, (tries.get(name) || 0) + 1);
    health.doubt();
    if (!navigator.onLine) throw unreachable(name, error);
    throw new Problem('gone', 'A part of this page could not be loaded', 'The server may be gone, or a newer version of it may run: load the page again.', String(error));
  }
}
