// A grid of any number of tiles, of which only those near the window are in the document.
//
// A source says what there is: `sections`, a list of {key, title, count, fold}, `item(section, place)`, which is null while it
// is not there yet, and `need(section, first, last)`, which fetches and calls `grid.fill()`. The height of everything is
// known from the counts alone, so that the page's own scroll bar reaches every item, and the tiles of a section lie at
// places that can be computed.

import { make, find } from './dom.js';

const GAP = 4, PHONE = 640, TILE = 146, HEAD = 52, FOOT = 20;
const AHEAD = 1.2;           // of the window's height, above and below it
const FAST = 3;              // windows a second: from there on, pictures wait until the scrolling ends
const REST_MS = 90;

export class Grid {
  /** `tile(item, place)` makes the content of a tile; `act(what, item, place)` is called for open, pick, more, less, add. */
  constructor(element, { tile, act }) {
    Object.assign(this, { element, tile, act });
    this.tiles = new Map();
    this.heads = new Map();
    this.boxes = [];
    this.at = [0, 0];          // the tile that the keyboard is at
    this.source = { sections: [] };
    this.lastY = 0;
    this.lastTime = 0;
    addEventListener('scroll', () => this.later(), { passive: true });
    new ResizeObserver(() => this.layOut()).observe(element);
    element.addEventListener('click', event => this.click(event));
    element.addEventListener('keydown', event => this.key(event));
    element.addEventListener('focusin', event => this.focused(event));
  }

  /** Shows a source from its beginning. */
  show(source) {
    this.source = source;
    this.at = [0, 0];
    this.clear();
    this.layOut();
  }

  clear() {
    for (const tile of this.tiles.values()) letGo(tile);
    this.tiles.clear();
    this.heads.clear();
    this.element.replaceChildren();
  }

  /** The counts have changed: everything finds its place anew. */
  layOut() {
    const width = this.element.clientWidth;
    if (!width) return;
    const columns = width < PHONE ? 3 : Math.max(4, Math.round((width + GAP) / (TILE + GAP)));
    const side = (width - GAP * (columns - 1)) / columns;
    const changed = columns !== this.columns || Math.abs(side - this.side) > 0.01;
    Object.assign(this, { columns, side, step: side + GAP });
    let top = 0;
    this.boxes = this.source.sections.map(section => {
      const head = section.title ? HEAD : 0;
      const rows = section.fold ? 0 : Math.ceil(section.count / columns);
      const box = { top, head, rows, height: head + rows * this.step + (section.title ? FOOT : 0) };
      top += box.height;
      return box;
    });
    this.height = top;
    this.element.style.height = Math.ceil(top) + 'px';
    if (changed) this.clear();
    else this.place();
    this.draw();
    this.element.dispatchEvent(new Event('laid'));
  }

  /** Moves what is drawn to its places. */
  place() {
    for (const [number, head] of this.heads) {
      if (!this.boxes[number] || head.key !== this.source.sections[number].key) { this.clear(); return; }
      this.placeHead(number, head);
      this.describe(head, this.source.sections[number]);
    }
  }

  /** A heading that folds its section says whether it does, and how much there is. */
  describe(head, section) {
    const fold = head.querySelector('.fold-button');
    if (!fold) return;
    fold.setAttribute('aria-expanded', String(!section.fold));
    fold.querySelector('small').textContent = section.note || '';
  }

  placeHead(number, head) {
    const box = this.boxes[number];
    head.style.top = box.top + 'px';
    head.style.height = box.height + 'px';
  }

  later() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.draw(); });
  }

  /** Items have come: placeholders become tiles. */
  fill() {
    for (const [key, tile] of this.tiles) if (!tile.item) { letGo(tile); tile.remove(); this.tiles.delete(key); }
    this.draw();
  }

  top() {
    return this.element.getBoundingClientRect().top + scrollY;
  }

  draw() {
    if (!this.side || !this.element.isConnected) return;
    const now = performance.now(), windows = Math.abs(scrollY - this.lastY) / innerHeight;
    const fast = windows / Math.max(0.016, (now - this.lastTime) / 1000) > FAST && windows > 0.2;
    Object.assign(this, { lastY: scrollY, lastTime: now, fast });
    clearTimeout(this.resting);
    if (fast) this.resting = setTimeout(() => { this.fast = false; this.draw(); this.picture(); }, REST_MS);
    const from = scrollY - this.top(), first = from - innerHeight * AHEAD, last = from + innerHeight * (1 + AHEAD);
    const wanted = new Set(), shown = new Set();
    for (let number = this.sectionAt(first); number < this.boxes.length && this.boxes[number].top < last; number += 1) {
      shown.add(number);
      this.drawSection(number, first, last, wanted);
    }
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key) && !tile.contains(document.activeElement)) { letGo(tile); tile.remove(); this.tiles.delete(key); }
    }
    for (const [number, head] of this.heads) {
      if (!shown.has(number) && !head.contains(document.activeElement)) { head.remove(); this.heads.delete(number); }
    }
    if (!fast) this.picture();
  }

  drawSection(number, first, last, wanted) {
    const section = this.source.sections[number], box = this.boxes[number];
    const list = this.head(number).list;
    if (!box.rows) return;
    const start = box.top + box.head;
    const firstRow = Math.max(0, Math.floor((first - start) / this.step)), lastRow = Math.min(box.rows - 1, Math.floor((last - start) / this.step));
    const begin = firstRow * this.columns, end = Math.min(section.count, (lastRow + 1) * this.columns);
    if (begin >= end) return;
    if (!this.fast) this.source.need(number, begin, end - 1);
    for (let place = begin; place < end; place += 1) {
      const key = number + ':' + place;
      wanted.add(key);
      if (!this.tiles.has(key)) {
        const made = this.make(number, place);
        this.tiles.set(key, made);
        list.append(made);
      }
    }
  }

  head(number) {
    if (this.heads.has(number)) return this.heads.get(number);
    const section = this.source.sections[number];
    const list = make('ul', { role: 'list', 'aria-label': section.label || section.title || 'Results' });
    const made = make('section', { className: 'part' }, section.title ? this.title(section) : null, list);
    Object.assign(made, { list, key: section.key });
    this.heads.set(number, made);
    this.placeHead(number, made);
    this.element.append(made);
    return made;
  }

  title(section) {
    if (!section.toggle) return make('h2', {}, section.title, section.note ? make('small', {}, section.note) : null);
    const fold = make('button', { type: 'button', className: 'fold-button', 'aria-expanded': String(!section.fold) }, section.title, make('small', {}, section.note || ''));
    fold.addEventListener('click', () => section.toggle());
    return make('h2', {}, fold);
  }

  make(number, place) {
    const item = this.source.item(number, place);
    const { columns, step, side } = this;
    const tile = make('li', { className: 'tile' + (item ? '' : ' waiting') });
    if (item) {
      tile.append(...this.tile(item, this));
      tile.classList.add('k-' + item.modality);
      tile.setAttribute('aria-setsize', this.source.sections[number].count);
      tile.setAttribute('aria-posinset', place + 1);
    } else {
      tile.setAttribute('aria-hidden', 'true');
    }
    Object.assign(tile, { item, number, place });
    Object.assign(tile.style, { width: side + 'px', height: side + 'px', transform: 'translate(' + (place % columns) * step + 'px, ' + Math.floor(place / columns) * step + 'px)' });
    const open = find('.open', tile);
    if (open) open.tabIndex = number === this.at[0] && place === this.at[1] ? 0 : -1;
    return tile;
  }

  /** Gives the pictures near the window their addresses. */
  picture() {
    for (const tile of this.tiles.values()) {
      const image = tile.item && find('img[data-src]', tile);
      if (image) { image.src = image.dataset.src; delete image.dataset.src; }
    }
  }

  sectionAt(y) {
    let low = 0, high = this.boxes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.boxes[middle].top <= y) low = middle; else high = middle - 1;
    }
    return Math.max(0, low);
  }

  /** The section at the top of the window, and how far the window is inside everything, from 0 to 1. */
  where() {
    const y = Math.max(0, scrollY - this.top());
    if (scrollY > 0 && scrollY + innerHeight >= document.documentElement.scrollHeight - 2) return { section: this.boxes.length - 1, share: 1 };
    return { section: this.sectionAt(y + HEAD), share: y / Math.max(1, this.height - innerHeight / 2) };
  }

  scrollToSection(number) {
    scrollTo({ top: Math.max(0, this.top() + this.boxes[number].top - find('.top').offsetHeight - 4), behavior: 'instant' });
  }

  // ---- Mouse and keyboard ----

  click(event) {
    const tile = event.target.closest('.tile');
    if (!tile || !tile.item) return;
    const what = event.target.closest('[data-act]');
    if (what) this.act(what.dataset.act, tile.item, [tile.number, tile.place], event);
  }

  focused(event) {
    const tile = event.target.closest('.tile');
    if (tile && tile.item) this.moveTo(tile.number, tile.place);
  }

  moveTo(number, place) {
    const before = this.tiles.get(this.at.join(':'));
    if (before && find('.open', before)) find('.open', before).tabIndex = -1;
    this.at = [number, place];
    const now = this.tiles.get(this.at.join(':'));
    if (now && find('.open', now)) find('.open', now).tabIndex = 0;
    return now;
  }

  key(event) {
    const tile = event.target.closest('.tile');
    if (!tile || !tile.item || event.ctrlKey || event.metaKey || event.altKey) return;
    const what = { m: 'more', l: 'less', a: 'add', x: 'pick', f: 'favourite' }[event.key];
    if (what) {
      event.preventDefault();
      this.act(what, tile.item, [tile.number, tile.place], event);
      return;
    }
    const next = this.next(tile.number, tile.place, event.key);
    if (!next) return;
    event.preventDefault();
    this.focus(...next);
  }

  /** The place that a key leads to, or null. */
  next(number, place, key) {
    const { columns } = this, sections = this.source.sections, count = sections[number].count;
    const after = step => { for (let n = number + step; sections[n]; n += step) if (sections[n].count && !sections[n].fold) return n; return -1; };
    if (key === 'ArrowRight') return place + 1 < count ? [number, place + 1] : after(1) >= 0 ? [after(1), 0] : null;
    if (key === 'ArrowLeft') return place ? [number, place - 1] : after(-1) >= 0 ? [after(-1), sections[after(-1)].count - 1] : null;
    if (key === 'Home') return [number, 0];
    if (key === 'End') return [number, count - 1];
    const column = place % columns;
    if (key === 'ArrowDown') {
      if (place + columns < count) return [number, place + columns];
      if (Math.floor(place / columns) < Math.ceil(count / columns) - 1) return [number, count - 1];
      return after(1) >= 0 ? [after(1), Math.min(column, sections[after(1)].count - 1)] : null;
    }
    if (key !== 'ArrowUp') return null;
    if (place >= columns) return [number, place - columns];
    const above = after(-1);
    if (above < 0) { find('.words').focus(); return null; }
    const lastRow = Math.floor((sections[above].count - 1) / columns) * columns;
    return [above, Math.min(lastRow + column, sections[above].count - 1)];
  }

  /** Moves the keyboard to a tile, which is scrolled to where it is out of sight. */
  focus(number, place) {
    const box = this.boxes[number];
    if (!box) return;
    const y = this.top() + box.top + box.head + Math.floor(place / this.columns) * this.step;
    const head = find('.top').offsetHeight + HEAD;
    if (y < scrollY + head) scrollTo({ top: y - head, behavior: 'instant' });
    else if (y + this.side > scrollY + innerHeight) scrollTo({ top: y + this.side - innerHeight + 12, behavior: 'instant' });
    this.draw();
    const tile = this.moveTo(number, place);
    if (tile && find('.open', tile)) find('.open', tile).focus({ preventScroll: true });
    else if (this.source.when) this.source.when(number, place).then(() => { if (this.at[0] === number && this.at[1] === place) this.focus(number, place); });
  }

  /** The places before and after one, over all sections, for the viewer. */
  beside(number, place, step) {
    return this.next(number, place, step > 0 ? 'ArrowRight' : 'ArrowLeft');
  }
}

function letGo(tile) {
  // A picture that is still on its way is not waited for.
  for (const image of tile.querySelectorAll('img')) if (!image.complete) image.removeAttribute('src');
}
