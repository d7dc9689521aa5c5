mod bench;
mod peer;

mod coming;
mod failing;
mod proof;
mod working;
