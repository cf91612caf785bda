// Who the visitor pretends to be. A real app would have them sign in.
import {useSyncExternalStore} from 'react';

const KEY = 'demo-user';
const listeners = new Set();

const read = () => localStorage.getItem(KEY) ?? 'u1';

function subscribe(listener) {
  listeners.add(listener);
  // Other windows of the same browser are the same person.
  addEventListener('storage', listener);
  return () => {
    listeners.delete(listener);
    removeEventListener('storage', listener);
  };
}

function become(userID) {
  localStorage.setItem(KEY, userID);
  for (const listener of listeners) listener();
}

export const useMe = () => [useSyncExternalStore(subscribe, read), become];
