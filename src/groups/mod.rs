//! Client groups: desires, cookies, poke composition.
