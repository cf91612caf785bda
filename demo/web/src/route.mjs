// What is shown, kept in the address: it survives a reload and can be shared.
import {useSyncExternalStore} from 'react';

let hash;
let route = {};

function current() {
  if (location.hash !== hash) {
    hash = location.hash;
    route = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  }
  return route;
}

const listeners = new Set();
function subscribe(listener) {
  listeners.add(listener);
  addEventListener('hashchange', listener);
  addEventListener('popstate', listener);
  return () => {
    listeners.delete(listener);
    removeEventListener('hashchange', listener);
    removeEventListener('popstate', listener);
  };
}

export function hrefOf(change) {
  const next = {...current(), ...change};
  const params = new URLSearchParams(Object.entries(next).filter(([, value]) => value));
  return `#${params}`;
}

/** `replace` leaves no entry to go back to: for typing. */
export function go(change, {replace = false} = {}) {
  history[replace ? 'replaceState' : 'pushState'](null, '', hrefOf(change));
  for (const listener of listeners) listener();
}

export const useRoute = () => [useSyncExternalStore(subscribe, current), go];
