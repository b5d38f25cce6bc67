//! Where guest bytes come from and go to.

pub(crate) mod cow;
pub(crate) mod disk;
pub(crate) mod raw;
