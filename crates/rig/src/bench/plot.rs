//! Bars and curves, as SVG.

mod axis;
mod bars;
mod curve;

pub(super) use self::{
    bars::{bars, height},
    curve::curve,
};

/// What the classes look like, in a page or in a file of its own. Those of lines are as many as [`LINES`].
pub(super) const STYLE: &str = "\
svg text { font: 12px system-ui, sans-serif; fill: #1c2430 } .faint { font-size: 10px; fill: #667 } .bar { fill: #9db7dd }
.bar.ours { fill: #1d4f9c } .whisker { stroke: #d98b2b; stroke-width: 1.5; fill: none } .grid { stroke: #e4e7ec }
.cut { stroke: #fff; stroke-width: 4 } .line { fill: none; stroke-width: 1.8 } .l0 { stroke: #1d4f9c } .l1 { stroke: #d98b2b } .l2 { stroke: #1c7a3d }
.l3 { stroke: #a03d8f } .l4 { stroke: #c21f1f } .l5 { stroke: #667788 }
@media (prefers-color-scheme: dark) { svg text { fill: #dde3ec } .faint { fill: #98a2b3 } .bar { fill: #35507a }
  .bar.ours { fill: #8db4f2 } .grid { stroke: #2a313c } .cut { stroke: #14181f } .l0 { stroke: #8db4f2 } .l1 { stroke: #f0b35c } .l2 { stroke: #6cc98d }
  .l3 { stroke: #dc8ccd } .l4 { stroke: #ff7d7d } .l5 { stroke: #aab6c4 } }";
pub(super) const WIDTH: f64 = 860.0;
/// How many lines can be told apart.
const LINES: usize = 6;

fn is_ours(whose: &str) -> bool {
    whose.starts_with("ours")
}
