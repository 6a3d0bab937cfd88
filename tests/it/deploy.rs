//! Deploy roots with real rsync, cp and mv.
