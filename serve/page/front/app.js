// The page: it shows what the address says, and keeps up with the server.

import { all, button, find, icon, make, notify, panel, problemPanel, question, say } from './dom.js';
import { call, giveUp, health, lazy } from './client.js';
import { Grid } from './grid.js';
import { tileOf } from './tile.js';
import { facets, scrub, Timeline } from './timeline.js';
import { addItem, fitQuery, searchFiles, showExamples, showQuery, startQuery } from './query.js';
import { asks, empty, filters, follow, go, onChange, state, whereOf } from './state.js';
import { counted, known, learn, number, plural } from './words.js';

const EMPTY_POLL_MS = 4000, WAIT_MS = 250, RETRIES = 3;
const SHEETS = { map: './map.js', albums: './albums.js', duplicates: './duplicates.js', add: './add.js', about: './about.js' };

export const selected = new Map();   // id -> item
let latest = 0;                      // the number of the last view; answers to earlier ones are dropped
let source = null;
let told = null;                     // the facets of what is shown

const main = find('main'), middle = find('.state'), sheet = find('.sheet'), dialog = find('.viewer');
export const grid = new Grid(find('.grid'), { tile: item => tileOf(item, id => selected.has(id)), act });

// ---- What is shown ----

const query = shown => JSON.stringify({ ...shown, item: null });

onChange((shown, before) => {
  showQuery(shown);
  showExamples(shown.view === 'library' && !asks(shown) && !filters(shown));
  showOptions();
  for (const link of all('.places a')) link.toggleAttribute('aria-current', link.dataset.view === shown.view);
  if (query(shown) !== query(before) || !source && shown.view === 'library') showView(shown);
  if (shown.item !== before.item) showItem(shown);
});

/** Shows the view of a state anew. */
export function showView(shown = state()) {
  const turn = ++latest;
  source?.close?.();
  source = null;
  grid.show({ sections: [] });
  middle.hidden = true;
  middle.replaceChildren();
  main.removeAttribute('aria-busy');
  find('.scrubber').hidden = true;
  const library = shown.view === 'library';
  grid.element.hidden = !library;
  sheet.hidden = library;
  document.body.dataset.view = shown.view;
  find('.options').hidden = !['library', 'map'].includes(shown.view);
  find('h1').textContent = library ? (asks(shown) ? 'Results' : 'Library') : shown.view[0].toUpperCase() + shown.view.slice(1);
  document.title = (asks(shown) ? (shown.words || 'Search') + ' · ' : library ? '' : find('h1').textContent + ' · ') + 'Crossbind';
  scrollTo({ top: 0, behavior: 'instant' });
  say('');
  if (!library) showSheet(shown, turn);
  else if (asks(shown)) search(shown, turn, 0);
  else browse(shown, turn);
}

async function showSheet(shown, turn) {
  sheet.replaceChildren();
  try {
    const module = await lazy(SHEETS[shown.view]);
    if (turn === latest) await module.show(sheet, shown, () => turn === latest);
  } catch (error) {
    if (turn === latest) failed(error, () => showView());
  }
}

async function search(shown, turn, attempt) {
  main.setAttribute('aria-busy', 'true');
  const began = performance.now();
  const waiting = setInterval(() => {
    if (turn !== latest) { clearInterval(waiting); return; }
    const seconds = Math.round((performance.now() - began) / 1000);
    if (!find('.skeleton', middle)) showMiddle(skeleton(), make('p', { className: 'center' }, button('Cancel', () => cancel(turn), 'secondary')));
    say(seconds < 2 ? 'Searching…' : 'Still searching: ' + seconds + ' s. The first search after a start loads the model.');
  }, WAIT_MS);
  try {
    const { Results } = await lazy('./results.js');
    if (turn !== latest) return;
    const results = new Results(shown, { changed: () => { if (source === results) { grid.layOut(); say(results.status()); } }, failed: error => notify(error.title, error.text, [], error) });
    source = results;
    await results.begin();
    if (turn !== latest) return;
    hideMiddle();
    say(results.status());
    grid.show(results);
    if (results.nothing && !shown.nearest) showMiddle(nothingAlike(results));
    else if (!results.sections.length) showMiddle(nothingFound(shown));
  } catch (error) {
    if (turn !== latest || error.name === 'AbortError') return;
    say('');
    if (error.code === 'bad_where') { showWhereError(error); return; }
    failed(error, () => showView());
    if (error.kind === 'busy' && attempt < RETRIES) searchAgain(shown, turn, attempt, error.retryAfterS);
  } finally {
    clearInterval(waiting);
    if (turn === latest) main.removeAttribute('aria-busy');
  }
}

function cancel(turn) {
  if (turn !== latest) return;
  latest += 1;
  source?.close?.();
  main.removeAttribute('aria-busy');
  say('Cancelled.');
  showMiddle(panel('', 'The search was cancelled', 'Your query stays as it is.', button('Search again', () => showView(), 'primary')));
}

function searchAgain(shown, turn, attempt, afterS) {
  let left = Math.max(1, Math.ceil(afterS || 1)) + attempt;
  const tick = () => {
    if (turn !== latest) return;
    if (left <= 0) { search(shown, turn, attempt + 1); return; }
    say('Searching again in ' + left + ' s.');
    left -= 1;
    setTimeout(tick, 1000);
  };
  tick();
}

async function browse(shown, turn) {
  main.setAttribute('aria-busy', 'true');
  try {
    told = await facets(shown);
    if (turn !== latest) return;
    hideMiddle();
    if (!told.total) { showMiddle(filters(shown) ? nothingFound(shown) : emptyLibrary()); return; }
    source = new Timeline(shown, told, { changed: () => grid.fill(), failed: error => { health.doubt(); if (error.kind !== 'gone') say(error.title); } });
    grid.show(source);
    if (shown.sort === 'date') scrub(grid, source);
    say(counted(told.total, 'item', 'items') + (filters(shown) ? ' of ' + number(known().files) + ' files' : ''));
  } catch (error) {
    if (turn !== latest || error.name === 'AbortError') return;
    if (error.code === 'bad_where') showWhereError(error);
    else failed(error, () => showView());
  } finally {
    if (turn === latest) main.removeAttribute('aria-busy');
  }
}

function showMiddle(...content) {
  middle.replaceChildren(...content);
  middle.hidden = false;
}

function hideMiddle() {
  middle.hidden = true;
  middle.replaceChildren();
}

function failed(error, again) {
  grid.show({ sections: [] });
  source = null;
  const problem = error.title ? error : { title: 'Something went wrong in this page', text: 'Load the page again.', detail: String(error.stack || error) };
  showMiddle(problemPanel(problem, button('Try again', again, 'primary')));
}

const skeleton = () => make('div', { className: 'skeleton', 'aria-hidden': 'true' }, ...Array.from({ length: 18 }, () => make('i')));

function nothingAlike(results) {
  const count = results.hits[1].length;
  return panel('nothing', 'Nothing here looks like that', filters(results.shown) ? 'Nothing that passes your filters is likely to be what you asked for.' : 'Nothing in this library is likely to be what you asked for.',
    count ? button('Show the nearest', () => go({ nearest: true }), 'primary') : null,
    filters(results.shown) ? button('Search without the filters', clearFilters, 'secondary') : null);
}

function nothingFound(shown) {
  if (!filters(shown)) return panel('nothing', 'Nothing found', 'The library has nothing else to compare this with.');
  return panel('nothing', 'Nothing passes these filters', 'You asked for only what fits:', make('code', {}, whereOf(shown, { kinds: true })), button('Clear the filters', clearFilters, 'primary'));
}

export function clearFilters() {
  const { folder, camera, place, album, tag, id, from, to, favourites, hidden, where, kinds } = empty();
  go({ folder, camera, place, album, tag, id, from, to, favourites, hidden, where, kinds, nearest: false });
}

function showWhereError(error) {
  showMiddle(panel('problem', 'The filter cannot be read', '', make('pre', { className: 'where-error', tabIndex: 0 }, error.message_), button('Clear the filter', () => go({ where: '' }), 'primary')));
}

function emptyLibrary() {
  const command = known().index_command;
  setTimeout(lookAgain, EMPTY_POLL_MS, latest);
  return panel('empty', 'This library is empty', 'Drop files on this page, or give it a folder of pictures, videos, sounds or texts. In a terminal on the machine that runs this server:',
    make('pre', { tabIndex: 0 }, make('code', {}, command)),
    known().read_only ? null : button('Add files', () => go({ view: 'add' }), 'primary'));
}

async function lookAgain(turn) {
  if (turn !== latest) return;
  try {
    if (await refresh()) { if (turn === latest) showView(); return; }
  } catch { /* the banner says it */ }
  setTimeout(lookAgain, EMPTY_POLL_MS, turn);
}

// ---- Filters and kinds ----

function showOptions() {
  const shown = state(), { items, files: inAll } = known();
  find('.sort').hidden = asks(shown);
  find('.sort select').value = shown.sort + ' ' + shown.order;
  find('.kinds').replaceChildren(...Object.keys(items || {}).map(name => {
    const on = shown.kinds.includes(name);
    const toggle = make('button', { type: 'button', className: 'chip kind k-' + name, 'aria-pressed': String(on) }, icon(name), plural(name));
    toggle.addEventListener('click', () => {
      go({ kinds: on ? shown.kinds.filter(other => other !== name) : [...shown.kinds, name], nearest: false });
      find('.kind.k-' + CSS.escape(name))?.focus();
    });
    return toggle;
  }));
  const lists = ['folder', 'camera', 'place', 'album', 'tag'].flatMap(name => shown[name].map(value => [value, { [name]: shown[name].filter(other => other !== value) }]));
  if (shown.id.length) lists.push([counted(shown.id.length, 'chosen item', 'chosen items'), { id: [] }]);
  if (shown.from || shown.to) lists.push([[shown.from || 'the beginning', shown.to || 'today'].join(' to '), { from: '', to: '' }]);
  if (shown.favourites) lists.push(['favourites', { favourites: false }]);
  if (shown.hidden) lists.push(['also hidden', { hidden: false }]);
  if (shown.where) lists.push([shown.where, { where: '' }]);
  find('.chips').replaceChildren(...lists.map(([label, changes]) => {
    const chip = button(label.split('/').pop() || label, () => go({ ...changes, nearest: false }), 'chip on');
    chip.append(icon('close'));
    chip.title = label;
    chip.setAttribute('aria-label', 'Remove the filter ' + label);
    return chip;
  }));
  if (inAll !== undefined && !find('.filters').hidden) lazy('./filters.js').then(module => module.showFilters(shown));
}

async function toggleFilters() {
  const place = find('.filters'), opener = find('[data-do="filter"]');
  place.hidden = !place.hidden;
  opener.setAttribute('aria-expanded', String(!place.hidden));
  if (place.hidden) return;
  const module = await lazy('./filters.js');
  await module.showFilters(state());
  grid.layOut();
}

// ---- Items ----

async function act(what, item, place, event) {
  if (what === 'open') {
    if (selected.size && event?.shiftKey) pick(item, place, event);
    else go({ item: item.id });
  }
  if (what === 'pick') pick(item, place, event);
  if (what === 'more') addItem(item, 1, true);
  if (what === 'less') addItem(item, -0.5, false);
  if (what === 'add') addItem(item, 1, false);
  if (what === 'favourite') (await lazy('./selection.js')).mark([item], { favourite: !item.favourite });
}

let picking = Promise.resolve();

/** One pick after the other, so that the selection is in their order. */
function pick(item, place, event) {
  picking = picking.then(async () => (await lazy('./selection.js')).pick(item, place, event, source));
}

async function showItem(shown) {
  if (!shown.item) { if (dialog.open) dialog.close(); return; }
  const module = await lazy('./viewer.js');
  module.showItem(shown.item, grid, source);
}

dialog.addEventListener('close', () => { if (state().item) go({ item: null }); });

// ---- The server ----

const MESSAGES = {
  slow: ['The server has not answered for 4 seconds. It may be busy, or gone.'],
  gone: ['The server does not answer. This page looks every two seconds whether it is back.'],
  offline: ['You are offline. This page goes on as soon as there is a network again.'],
};
let was = 'ok';

health.addEventListener('change', () => {
  const banner = find('.banner'), now = health.state;
  banner.hidden = now === 'ok';
  banner.replaceChildren(...(MESSAGES[now] || []));
  banner.className = 'banner ' + now;
  if (now === 'slow') banner.append(button('Cancel', () => { giveUp(); health.set('ok'); cancel(latest); }, 'quiet-button'));
  if (now === 'ok' && ['gone', 'offline'].includes(was)) (known().files === undefined ? start() : showView());
  was = now;
});

/** Asks what the server has; whether there is anything. */
export async function refresh() {
  learn(await call('overview'));
  return known().files > 0;
}

// ---- Input for the whole page ----

const doing = {
  filter: toggleFilters,
  home: () => { find('.words').value = ''; go(empty()); },
  skip: () => { (find('.grid .open') || main).focus(); },
};

document.addEventListener('click', event => {
  const link = event.target.closest('a[data-view], a[data-do]');
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    if (link.dataset.do) doing[link.dataset.do]?.();
    else go({ ...empty(), view: link.dataset.view });
    return;
  }
  doing[event.target.closest('button[data-do]')?.dataset.do]?.();
});

find('.words').addEventListener('focus', () => lazy('./results.js').catch(() => null), { once: true });

find('.sort select').addEventListener('change', event => {
  const [sort, order] = event.target.value.split(' ');
  go({ sort, order });
});

document.addEventListener('keydown', event => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && !['range', 'checkbox'].includes(event.target.type);
  if (event.key === '/' && !typing && !find('dialog[open]')) {
    event.preventDefault();
    find('.words').focus();
    find('.words').select();
  }
  if (event.key === 'Escape' && selected.size && !find('dialog[open]')) lazy('./selection.js').then(module => module.clear());
});

async function dropped(files) {
  const adding = async () => { go({ ...empty(), view: 'add' }); (await lazy('./add.js')).addFiles(files); };
  if (state().view === 'add') { adding(); return; }
  if (known().read_only) { searchFiles(files); return; }
  const what = files.length === 1 ? '“' + files[0].name + '”' : counted(files.length, 'file', 'files');
  const chosen = await question('What shall be done with ' + what + '?', make('p', {}, 'Searching keeps nothing of a file. Adding copies it into the library.'), [
    { label: 'Search with it', value: 'search', className: 'primary' },
    { label: 'Add it to the library', value: 'add' },
    { label: 'Cancel', value: null, className: 'quiet-button' },
  ]);
  if (chosen === 'search') searchFiles(files);
  if (chosen === 'add') adding();
}

async function start() {
  try {
    await refresh();
    fitQuery();
    follow();
  } catch (error) {
    failed(error, start);
  }
}

startQuery(dropped);
start();
