// Short messages in the corner; above everything that can be replaced.
import {useSyncExternalStore} from 'react';

let toasts = [];
let count = 0;
const listeners = new Set();

function set(next) {
  toasts = next;
  for (const listener of listeners) listener();
}

export function toast(text) {
  const id = ++count;
  set([...toasts, {id, text}].slice(-4));
  setTimeout(() => set(toasts.filter(t => t.id !== id)), 8000);
}

export function Toasts() {
  const shown = useSyncExternalStore(
    listener => (listeners.add(listener), () => listeners.delete(listener)),
    () => toasts,
  );
  return (
    <div className="toasts" role="status" aria-label="Messages">
      {shown.map(t => (
        <div key={t.id} className="toast">
          {t.text}
          <button aria-label="Dismiss" onClick={() => set(toasts.filter(x => x.id !== t.id))}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
