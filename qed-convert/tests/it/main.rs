//! The integration tests of qed-convert, one binary.

mod chain_edit;
mod chain_walk;
mod compare;
mod convert_faults;
mod convert_model;
mod convert_qemu;
mod holes;
mod in_place_from_raw;
mod in_place_interrupted;
mod in_place_to_qcow2;
mod in_place_to_raw;
mod in_place_undo;
mod lab;
mod qcow2_crafted;
mod qcow2_flips;
mod qcow2_hostile;
mod qcow2_hostile_cases;
mod qcow2_lab;
mod qcow2_matrix;
mod qcow2_rename;
mod sharing;
