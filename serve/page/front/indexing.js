// What the library could not use, with reasons and another try, and how indexing goes, live.

import { button, make, notify } from './dom.js';
import { ask, withParameters } from './client.js';
import { refresh } from './app.js';
import { clock, counted, number } from './words.js';

const PAGE = 50;

/** Shows what was skipped and how indexing goes, as long as `current()`. */
export async function showIndexing(place, current) {
  const live = make('section', { className: 'card', hidden: true }), skipped = make('section', { className: 'card', hidden: true }), folder = make('section', { className: 'card', hidden: true });
  place.replaceChildren(live, folder, skipped);
  listen(live, skipped, current);
  await Promise.all([showFolders(folder, live, skipped, current), showSkipped(skipped, current)]);
}

/** The folders of the library and, where the server's settings allow it, a field to add another one. */
async function showFolders(place, live, skipped, current) {
  const { data, allowed } = await ask('v1/folders');
  if (!current() || !data.length && !allowed.length) return;
  place.hidden = false;
  place.replaceChildren(make('h2', {}, 'Folders'), make('ul', { className: 'skipped' }, ...data.map(one => make('li', {}, make('code', { dir: 'auto' }, one.path), ' ', make('span', { className: 'quiet' }, counted(one.files, 'file', 'files') + (one.is_there ? '' : ', not there now'))))));
  if (!allowed.length) return;
  const field = make('input', { type: 'text', 'aria-label': 'Folder of the server to add', placeholder: allowed[0] + '/…', value: allowed.length === 1 && !data.length ? allowed[0] : '' });
  const form = make('form', { className: 'acts' }, field, make('button', { className: 'secondary' }, 'Add this folder'));
  form.addEventListener('submit', async event => {
    event.preventDefault();
    try {
      await ask('v1/folders', { method: 'POST', json: { path: field.value.trim() } });
      listen(live, skipped, current);
    } catch (error) {
      notify(error.title || 'This did not work', error.text || String(error), [], error);
    }
  });
  place.append(form);
}

/** Progress comes as server-sent events; where there is none, nothing is shown. */
function listen(live, skipped, current) {
  const events = new EventSource('v1/indexing');
  const told = make('p', { role: 'status' }), bar = make('progress', { max: 1, 'aria-label': 'Indexing' });
  live.replaceChildren(make('h2', {}, 'Indexing'), told, bar);
  events.addEventListener('indexing', event => {
    if (!current() || !live.isConnected) { events.close(); return; }
    const { state, done, total, rate, left_s: left, path, report, error } = JSON.parse(event.data);
    const busy = state === 'running' || state === 'waiting';
    live.hidden = state === 'idle';
    bar.hidden = !busy;
    if (busy) {
      if (total) bar.value = done / total; else bar.removeAttribute('value');
      told.textContent = [counted(done, 'file', 'files') + (total ? ' of ' + number(total) : ''), rate ? rate.toFixed(1) + ' a second' : '', left ? clock(left) + ' to go' : '', path || ''].filter(Boolean).join(' · ');
      return;
    }
    events.close();
    told.textContent = error || (report ? [number(report.added) + ' added', number(report.updated) + ' updated', number(report.unchanged) + ' unchanged', number(report.skipped) + ' skipped'].join(', ') : '');
    refresh().catch(() => null);
    showSkipped(skipped, current);
  });
  events.addEventListener('error', () => { if (events.readyState === EventSource.CLOSED || !current()) events.close(); });
}

async function showSkipped(place, current, live = place.parentElement.firstElementChild) {
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
      await ask('v1/skipped/retry', { method: 'POST' });
      listen(live, place, current);
    } catch (error) {
      notify(error.title || 'This did not work', error.text || String(error), [], error);
    }
    again.disabled = false;
  }, 'secondary');
  place.replaceChildren(make('h2', {}, counted(answer.total, 'file', 'files') + ' could not be used'),
    make('ul', { className: 'skipped' }, ...answer.data.map(one => make('li', {}, make('code', { dir: 'auto' }, one.path), ' ', make('span', { className: 'quiet' }, one.reason)))), again);
}
