// One item, large: its preview, previous and next, and beside it all that is known and can be done.

import { find, icon, iconButton, make, problemPanel, button } from './dom.js';
import { ask, health, lazy } from './client.js';
import { go, sentTerms, state } from './state.js';
import { nameOf, previewOf, span } from './words.js';
import { figureOf } from './tile.js';

const dialog = find('.viewer');
let at = null;          // the place of the item in the grid, where it is known
let shown = null;       // the item
let around = {};        // the grid and its source
let turn = 0;
let stop = null;

/** Shows an item in the dialog. */
export async function showItem(id, grid, source) {
  const now = ++turn;
  around = { grid, source };
  if (!at || grid.source.item?.(...at)?.id !== id) at = placeOf(grid, id);
  stop?.abort();
  stop = new AbortController();
  const stage = make('div', { className: 'stage' }, make('span', { className: 'spin', role: 'img', 'aria-label': 'loading' }));
  const facts = make('div', { className: 'facts' });
  const bar = make('div', { className: 'viewer-bar' });
  dialog.replaceChildren(make('div', { className: 'look' }, stage, bar, ...steps()), facts);
  if (!dialog.open) dialog.showModal();
  else if (!dialog.contains(document.activeElement)) dialog.focus();  // what had the focus was part of the item before
  try {
    const item = await ask('v1/items/' + id, { signal: stop.signal });
    if (now !== turn) return;
    shown = { ...hitOf(grid, id), ...item };
    dialog.setAttribute('aria-label', nameOf(shown));
    showPreview(stage, shown);
    showBar(bar, stage, shown);
    const { showFacts } = await lazy('./facts.js');
    if (now === turn) showFacts(facts, shown, { signal: stop.signal, current: () => now === turn });
  } catch (error) {
    if (now !== turn || error.name === 'AbortError') return;
    stage.replaceChildren(problemPanel(error, button('Close', () => dialog.close(), 'primary')));
    bar.append(make('h2', { className: 'unseen' }, 'Details'), closeButton());
  }
}

function placeOf(grid, id) {
  for (const tile of grid.tiles.values()) if (tile.item && tile.item.id === id) return [tile.number, tile.place];
  return null;
}

/** What the search said of an item (score, lines), where it was found by one. */
function hitOf(grid, id) {
  const found = at && grid.source.item?.(...at);
  return found && found.id === id ? found : {};
}

function steps() {
  return [
    iconButton('left', 'Previous (left arrow)', () => step(-1), 'step previous'),
    iconButton('right', 'Next (right arrow)', () => step(1), 'step next'),
  ].map((made, side) => { made.hidden = !neighbour(side ? 1 : -1); return made; });
}

const neighbour = way => at && around.grid && around.grid.source.sections.length ? around.grid.beside(...at, way) : null;

async function step(way) {
  const next = neighbour(way);
  if (!next) return;
  const item = around.grid.source.item(...next) || await around.grid.source.when(...next);
  if (!item) return;
  at = next;
  go({ item: item.id }, { replace: true });
}

const closeButton = () => iconButton('close', 'Close (Escape)', () => dialog.close(), 'round close');

function showBar(bar, stage, item) {
  const asked = sentTerms(state()).length > 0;
  bar.replaceChildren(...[
    make('h2', { dir: 'auto', title: item.path }, nameOf(item)),
    make('span', { className: 'time' }, span(item)),
    item.favourite === undefined ? null : favouriteButton(item),
    ['image', 'depth', 'thermal'].includes(item.modality) ? iconButton('where', asked ? 'Show where' : 'Select a part to search with', event => placesOf(event, stage, item)) : null,
    make('a', { className: 'round', href: item.media, download: nameOf(item), title: 'Download', 'aria-label': 'Download' }, icon('down')),
    closeButton(),
  ].filter(Boolean));
  bar.querySelectorAll('.round').forEach(made => made.classList.add('on-dark'));
}

function favouriteButton(item) {
  const made = iconButton('heart', 'Favourite (f)', () => toggleFavourite(item));
  made.classList.add('favourite');
  made.setAttribute('aria-pressed', String(item.favourite));
  return made;
}

async function toggleFavourite(item) {
  const { mark } = await lazy('./selection.js');
  const wanted = !item.favourite;
  if (!await mark([item], { favourite: wanted })) return;
  item.favourite = wanted;
  find('.favourite', dialog)?.setAttribute('aria-pressed', String(wanted));
}

async function placesOf(event, stage, item) {
  const opener = event.currentTarget;
  const { showPlaces } = await lazy('./places.js');
  await showPlaces(stage, item, opener);
}

// ---- Previews ----

function showPreview(stage, item) {
  const name = nameOf(item);
  if (item.modality === 'image') {
    const image = make('img', { src: item.media, alt: name, className: 'whole' });
    image.addEventListener('error', () => {
      if (image.src.endsWith('/thumbnail')) { gone(stage, item); return; }
      image.src = item.thumbnail;  // a format that browsers do not know
    });
    stage.replaceChildren(image);
    enlargeable(stage, image);
  } else if (item.modality === 'video' || item.modality === 'audio') {
    stage.replaceChildren(player(stage, item, name));
  } else if (previewOf(item.modality) === 'text') {
    showText(stage, item);
  } else {
    showFigure(stage, item, name);
  }
}

async function enlargeable(stage, image) {
  (await lazy('./zoom.js')).zoomable(stage, image);
}

function player(stage, item, name) {
  const media = make(item.modality, { controls: true, src: item.media + (item.start_s === null ? '' : '#t=' + item.start_s.toFixed(2)), preload: 'metadata', 'aria-label': name });
  if (item.modality === 'video') media.poster = item.thumbnail;
  // Media fragments start a player at its stretch; one that was moved before it was loaded is set there by hand.
  media.addEventListener('loadedmetadata', () => { if (item.start_s && media.currentTime < item.start_s - 0.05) media.currentTime = item.start_s; });
  media.addEventListener('error', () => media.replaceWith(make('p', { className: 'gone' }, 'This browser cannot play the file. ', make('a', { href: item.media, download: name }, 'Download it'))));
  if (item.modality === 'video') return media;
  return make('div', { className: 'sound' }, make('img', { src: figureOf(item), alt: '' }), media);
}

async function showText(stage, item) {
  const answer = await fetch(item.media).catch(() => null);
  const text = answer && answer.ok && (answer.headers.get('content-type') || '').startsWith('text/') ? await answer.text() : null;
  if (text === null) { gone(stage, item); return; }
  stage.replaceChildren(make('div', { className: 'reading', dir: 'auto', tabIndex: 0 }, text.slice(0, 200000)));
}

async function showFigure(stage, item, name) {
  try {
    const answer = await fetch(figureOf(item));
    if (!answer.ok) throw new Error(String(answer.status));
    const label = decodeURIComponent(answer.headers.get('x-label') || '');
    const image = make('img', { src: URL.createObjectURL(await answer.blob()), alt: name + (label ? ': ' + label : ''), className: 'whole figure' });
    image.addEventListener('load', () => URL.revokeObjectURL(image.src));
    stage.replaceChildren(image);
    enlargeable(stage, image);
  } catch {
    gone(stage, item);
  }
}

function gone(stage, item) {
  stage.replaceChildren(make('p', { className: 'gone' }, icon(item.modality), 'This file is gone, can no longer be read, or has changed since it was indexed.'));
  health.doubt();
}

// ---- Keys ----

dialog.tabIndex = -1;
dialog.addEventListener('keydown', event => {
  if (/^(INPUT|TEXTAREA|SELECT|VIDEO|AUDIO)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
    if (event.target.closest('[data-keys]')) return;
    event.preventDefault();
    step(event.key === 'ArrowLeft' ? -1 : 1);
  }
  if (event.key === 'f' && shown && shown.favourite !== undefined) toggleFavourite(shown);
});
dialog.addEventListener('close', () => {
  turn += 1;
  stop?.abort();
  dialog.replaceChildren();
  if (at && around.grid?.boxes.length) around.grid.focus(...at);
  at = null;
});
