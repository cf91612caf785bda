import {defineConfig} from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  // esbuild knows JSX; no plugin needed.
  esbuild: {jsx: 'automatic'},
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    // The client library is most of it, and does not split.
    chunkSizeWarningLimit: 1200,
  },
});
