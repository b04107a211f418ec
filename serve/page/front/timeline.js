// The whole library, or what passes the filters: by date under the months' names, or in another order without them.

import { ask, withParameters } from './client.js';
import { find, make } from './dom.js';
import { counted, monthTitle } from './words.js';
import { state, whereOf } from './state.js';

const PAGE = 120;            // items of one request
const KEPT_PAGES = 60;       // pages in memory: what was seen longest ago is fetched again

/** What the server says of everything that passes the filters: months, kinds, folders, cameras and so on, with counts. */
export function facets(shown = state(), signal = undefined) {
  return ask(withParameters('v1/facets', { where: whereOf(shown, { kinds: true }), hidden: shown.hidden && 'true' }), { signal });
}

/** The source of the grid for a library; `changed()` is called when items have come, `failed(problem)` when not. */
export class Timeline {
  constructor(shown, told, { changed, failed }) {
    Object.assign(this, { shown, changed, failed });
    this.where = whereOf(shown, { kinds: true });
    const months = shown.order === 'asc' ? [...told.months].reverse() : [...told.months];
    const undated = told.total - told.months.reduce((sum, { count }) => sum + count, 0);
    if (undated > 0) months[shown.order === 'asc' ? 'unshift' : 'push']({ month: '', count: undated });
    this.total = told.total;
    let begin = 0;
    this.sections = shown.sort === 'date'
      ? months.map(({ month, count }) => ({ key: month || 'none', month, title: monthTitle(month), note: counted(count, 'item', 'items'), count }))
      : [{ key: 'all', title: '', label: 'The library', count: told.total }];
    for (const section of this.sections) { section.begin = begin; begin += section.count; }
    this.pages = new Map();    // number of a page -> its items, in the order of their last use
    this.coming = new Map();   // number of a page -> promise
    this.leaving = new AbortController();
  }

  /** The place in the server's list. By date that is always newest first, as the months are counted in that order. */
  at(section, place) {
    const at = this.sections[section].begin + place;
    return this.shown.sort === 'date' && this.shown.order === 'asc' ? this.total - 1 - at : at;
  }

  item(section, place) {
    const at = this.at(section, place);
    const items = this.pages.get(Math.floor(at / PAGE));
    return items ? items[at % PAGE] || null : null;
  }

  need(section, first, last) {
    const [from, to] = [this.at(section, first), this.at(section, last)].sort((a, b) => a - b);
    for (let page = Math.floor(from / PAGE); page <= Math.floor(to / PAGE); page += 1) this.fetch(page);
  }

  /** A promise of the item at a place, for whoever must wait for it. */
  async when(section, place) {
    await this.fetch(Math.floor(this.at(section, place) / PAGE));
    return this.item(section, place);
  }

  fetch(page) {
    const items = this.pages.get(page);
    if (items) {
      this.pages.delete(page);
      this.pages.set(page, items);
      return Promise.resolve();
    }
    if (!this.coming.has(page)) this.coming.set(page, this.get(page));
    return this.coming.get(page);
  }

  async get(page) {
    const { shown } = this;
    try {
      const answer = await ask(withParameters('v1/items', {
        files: 'true', sort: shown.sort, order: shown.sort === 'date' ? 'desc' : shown.order, where: this.where, hidden: shown.hidden && 'true', offset: page * PAGE || null, limit: PAGE,
      }), { signal: this.leaving.signal });
      this.pages.set(page, answer.data);
      while (this.pages.size > KEPT_PAGES) this.pages.delete(this.pages.keys().next().value);
      this.changed();
    } catch (error) {
      if (error.name !== 'AbortError') this.failed(error);
    } finally {
      this.coming.delete(page);
    }
  }

  /** Lets go of everything that is still on its way. */
  close() {
    this.leaving.abort();
  }
}

// ---- The bar beside the timeline: years at their places, a handle that follows the scrolling and can be dragged ----

let stop = null;

/** Shows the scrubber of a timeline that a grid shows. */
export function scrub(grid, source) {
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop, bar = find('.scrubber');
  const handle = make('div', { className: 'handle', role: 'slider', tabIndex: 0, 'aria-orientation': 'vertical', 'aria-label': 'Month', 'aria-valuemin': 0, 'aria-valuemax': source.sections.length - 1 });
  const tip = make('span', { className: 'tip' });
  handle.append(tip);
  const lay = () => {
    if (grid.source !== source) { stop.abort(); return; }
    const scrolls = grid.height > innerHeight * 1.5 && source.sections.length > 1;
    bar.hidden = !scrolls;
    if (!scrolls) return;
    const height = bar.clientHeight, marks = [];
    let lastYear = '', lastTop = -100;
    source.sections.forEach((section, number) => {
      const year = section.month.slice(0, 4), top = grid.boxes[number].top / grid.height * height;
      if (year && year !== lastYear && top - lastTop > 26) {
        const mark = make('span', { className: 'year', 'aria-hidden': 'true' }, year);
        mark.style.top = top + 'px';
        marks.push(mark);
        lastTop = top;
      }
      lastYear = year;
    });
    bar.replaceChildren(...marks, handle);
    show();
  };
  const show = () => {
    if (bar.hidden || !grid.boxes.length) return;
    const { section, share } = grid.where();
    handle.style.top = Math.min(1, share) * 100 + '%';
    tip.textContent = monthTitle(source.sections[section]?.month);
    handle.setAttribute('aria-valuenow', section);
    handle.setAttribute('aria-valuetext', tip.textContent);
  };
  const drag = event => {
    const box = bar.getBoundingClientRect(), share = Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
    scrollTo({ top: grid.top() - find('.top').offsetHeight + share * Math.max(0, grid.height - innerHeight / 2), behavior: 'instant' });
  };
  bar.addEventListener('pointerdown', event => { bar.setPointerCapture(event.pointerId); bar.classList.add('held'); drag(event); event.preventDefault(); }, { signal });
  bar.addEventListener('pointermove', event => { if (event.buttons) drag(event); }, { signal });
  for (const kind of ['pointerup', 'pointercancel']) bar.addEventListener(kind, () => bar.classList.remove('held'), { signal });
  handle.addEventListener('keydown', event => {
    const at = grid.where().section;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 12, PageUp: at - 12, Home: 0, End: source.sections.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    grid.scrollToSection(Math.min(source.sections.length - 1, Math.max(0, to)));
    show();
  }, { signal });
  addEventListener('scroll', () => { bar.classList.add('used'); show(); }, { passive: true, signal });
  grid.element.addEventListener('laid', lay, { signal });
  lay();
}
