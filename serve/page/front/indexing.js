// What the library could not use, with reasons and another try, and how indexing goes, live.

import { button, make, notify } from './dom.js';
import { ask, withParameters } from './client.js';
import { counted, number } from './words.js';

const PAGE = 50;

/** Shows what was skipped and how indexing goes, as long as `current()`. */
export async function showIndexing(place, current) {
  const live = make('section', { className: 'card', hidden: true }), skipped = make('section', { className: 'card', hidden: true }), folder = make('section', { hidden: true });
  place.replaceChildren(live, folder, skipped);
  listen(live, skipped, current);
  await showSkipped(skipped, current);
}

/** Progress comes as server-sent events; where there is none, nothing is shown. */
function listen(live, skipped, current) {
  const events = new EventSource('v1/indexing');
  const told = make('p', { role: 'status' }), bar = make('progress', { max: 1, 'aria-label': 'Indexing' });
  live.append(make('h2', {}, 'Indexing'), told, bar);
  events.addEventListener('message', event => {
    if (!current() || !live.isConnected) { events.close(); return; }
    const now = JSON.parse(event.data);
    const running = now.state ? now.state === 'running' : Boolean(now.running);
    live.hidden = !running;
    if (!running) return;
    const done = now.done ?? 0, total = now.total ?? 0;
    if (total) bar.value = done / total; else bar.removeAttribute('value');
    told.textContent = [counted(done, 'file', 'files') + (total ? ' of ' + number(total) : ''), now.per_s ? now.per_s.toFixed(1) + ' a second' : '', now.skipped ? number(now.skipped) + ' skipped' : '', now.path || ''].filter(Boolean).join(' · ');
  });
  events.addEventListener('error', () => { if (events.readyState === EventSource.CLOSED || !current()) events.close(); });
}

async function showSkipped(place, current) {
  let answer;
  try {
    answer = await ask(withParameters('v1/skipped', { limit: PAGE }));
  } catch {
    return;
  }
  if (!current() || !answer.data.length) { place.hidden = true; return; }
  place.hidden = false;
  const again = button('Try them again', async () => {
    again.disabled = true;
    try {
      await ask('v1/skipped/retry', { method: 'POST', json: {}, patient: true });
      await showSkipped(place, current);
    } catch (error) {
      notify(error.title || 'This did not work', error.text || String(error), [], error);
    }
    again.disabled = false;
  }, 'secondary');
  place.replaceChildren(make('h2', {}, counted(answer.total ?? answer.data.length, 'file', 'files') + ' could not be used'),
    make('ul', { className: 'skipped' }, ...answer.data.map(one => make('li', {}, make('code', { dir: 'auto' }, one.path), ' ', make('span', { className: 'quiet' }, one.reason)))), again);
}
