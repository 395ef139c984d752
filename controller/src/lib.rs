//! warren's controller.
