// A button that opens a searchable list.
import {useEffect, useId, useLayoutEffect, useRef, useState} from 'react';

const WIDTH = 250;
const HEIGHT = 340;
const MARGIN = 8;

/** Below the button, or above it where there is no room; always inside the window. */
function placeBy(button) {
  const at = button.getBoundingClientRect();
  const left = Math.max(MARGIN, Math.min(at.left, innerWidth - WIDTH - MARGIN));
  const below = at.bottom + HEIGHT < innerHeight || at.top < HEIGHT;
  return {width: WIDTH, left, ...(below ? {top: at.bottom + 4} : {bottom: innerHeight - at.top + 4})};
}

/**
 * `options` are {id, text, node?}. With `onSearch` the caller filters (it asks the
 * server); without, the list filters itself.
 */
export function Picker({label, value, options, onPick, onSearch, children}) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState('');
  const [active, setActive] = useState(0);
  const box = useRef(null);
  const list = useRef(null);
  const id = useId();
  const [place, setPlace] = useState();

  useLayoutEffect(() => {
    if (open) setPlace(placeBy(box.current));
  }, [open]);

  useEffect(() => {
    if (!open) return;
    const outside = event => {
      if (!box.current?.contains(event.target)) setOpen(false);
    };
    addEventListener('pointerdown', outside);
    return () => removeEventListener('pointerdown', outside);
  }, [open]);

  useEffect(() => {
    list.current?.querySelector('[aria-selected=true]')?.scrollIntoView({block: 'nearest'});
  }, [active, open]);

  const shown = onSearch ? options : options.filter(o => o.text.toLowerCase().includes(text.toLowerCase()));

  function search(value) {
    setText(value);
    setActive(0);
    onSearch?.(value);
  }
  function toggle() {
    search('');
    setOpen(!open);
  }
  function pick(option) {
    setOpen(false);
    onPick(option.id);
  }
  function key(event) {
    if (event.key === 'ArrowDown') setActive(a => Math.min(a + 1, shown.length - 1));
    else if (event.key === 'ArrowUp') setActive(a => Math.max(a - 1, 0));
    else if (event.key === 'Enter' && shown[active]) pick(shown[active]);
    else if (event.key === 'Escape') setOpen(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <div className="picker" ref={box}>
      <button type="button" className="picker-button" aria-label={label} aria-haspopup="listbox" aria-expanded={open} onClick={toggle}>
        {children}
      </button>
      {open && place && (
        <div className="popover" style={place} onKeyDown={key}>
          <input
            autoFocus
            placeholder={label}
            aria-label={`Search: ${label}`}
            aria-controls={id}
            value={text}
            onChange={e => search(e.target.value)}
          />
          <ul id={id} role="listbox" ref={list}>
            {shown.map((option, i) => (
              <li
                key={option.id ?? ''}
                role="option"
                aria-selected={i === active}
                className={option.id === value ? 'chosen' : ''}
                onPointerEnter={() => setActive(i)}
                onClick={() => pick(option)}
              >
                {option.node ?? option.text}
              </li>
            ))}
            {shown.length === 0 && <li className="none">Nothing found</li>}
          </ul>
        </div>
      )}
    </div>
  );
}
