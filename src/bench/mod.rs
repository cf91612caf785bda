//! `kelvin bench`: a load generator that speaks the sync protocol to any server.
