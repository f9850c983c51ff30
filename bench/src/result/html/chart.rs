//! A chart as SVG: a field with axes, and what is drawn into it.
//!
//! All lengths are units of the view box. The style sheet scales texts to the screen, so margins have room for the
//! large ones of a phone.

use super::axis::Axis;
use super::words::escape;

/// A chart that is being drawn.
pub(super) struct Chart {
    pub(super) x: Axis,
    pub(super) y: Axis,
    height: f64,
    top: f64,
    bottom: f64,
    body: String,
}

/// What stands around a chart.
pub(super) struct Caption<'a> {
    /// Unique on the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// How to read it: a sentence or two.
    pub(super) text: &'a str,
    /// What a reader who does not see it must know.
    pub(super) description: &'a str,
    /// Line or fill, and what it stands for.
    pub(super) legend: &'a [(String, String)],
    /// Tables of the figures, as HTML.
    pub(super) tables: &'a str,
}

/// Width of every view box.
pub(super) const WIDTH: f64 = 640.0;

/// Room for `100 ms` in the large letters of a phone.
const LEFT: f64 = 86.0;

/// Room for half of the last name below.
const RIGHT: f64 = 26.0;

const HEIGHT: f64 = 340.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 38.0;

/// Height of the strip for names of phases, and of that for errors.
const STRIP: f64 = 24.0;

impl Chart {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Self { x, y, height: HEIGHT, top: TOP, bottom: HEIGHT - BOTTOM, body: String::new() }
    }

    /// A strip above the field, for names.
    pub(super) fn with_strip_above(mut self) -> Self {
        self.top += STRIP - TOP / 2.0;
        self
    }

    /// A strip below the field, for [`Chart::lane`].
    pub(super) fn with_lane(mut self) -> Self {
        self.bottom -= STRIP + 6.0;
        self
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        self.bottom - self.y.place(value) * (self.bottom - self.top)
    }

    /// A line through points; it is broken where there is none.
    pub(super) fn line(&mut self, class: &str, points: impl IntoIterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut is_down = false;
        for point in points {
            if let Some((x, y)) = point {
                let command = if is_down { 'L' } else { 'M' };
                path.push_str(&format!("{command}{:.1} {:.1}", self.x_at(x), self.y_at(y)));
            }
            is_down = point.is_some();
        }
        self.body.push_str(&format!("<path class=\"line {class}\" d=\"{path}\"/>"));
    }

    /// The field from one value of x to another, over all of y.
    pub(super) fn band(&mut self, class: &str, from: f64, until: f64, title: &str) {
        let (left, right) = (self.x_at(from), self.x_at(until));
        self.body.push_str(&format!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            self.top,
            right - left,
            self.bottom - self.top,
            escape(title),
        ));
    }

    /// A line from top to bottom.
    pub(super) fn upright(&mut self, class: &str, at: f64) {
        let x = self.x_at(at);
        self.body.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            self.top, self.bottom
        ));
    }

    /// A line from left to right.
    pub(super) fn level(&mut self, class: &str, at: f64) {
        let y = self.y_at(at);
        self.body.push_str(&format!(
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        ));
    }

    /// A mark with a text that shows when it is pointed at.
    pub(super) fn dot(&mut self, class: &str, x: f64, y: f64, title: &str) {
        let (x, y) = (self.x_at(x), self.y_at(y));
        self.body.push_str(&format!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{}</title></circle>",
            escape(title)
        ));
    }

    /// A rectangle of values, as a piece of a path.
    pub(super) fn cell(&self, x: [f64; 2], y: [f64; 2]) -> String {
        let [left, right] = x.map(|value| self.x_at(value));
        let [bottom, top] = y.map(|value| self.y_at(value));
        format!("M{left:.1} {top:.1}H{right:.1}V{bottom:.1}H{left:.1}z")
    }

    /// Cells of one colour.
    pub(super) fn cells(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            self.body.push_str(&format!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// A name in the strip above, if there is room for it between these values.
    pub(super) fn name_above(&mut self, from: f64, until: f64, name: &str) {
        let (left, right) = (self.x_at(from), self.x_at(until));
        // 11 units: a letter's width on a phone.
        if right - left > 11.0 * name.chars().count() as f64 {
            self.put("name", (left + right) / 2.0, self.top - 8.0, "middle", name);
        }
    }

    /// A text in the field, `line` lines below its top, right of a value or, near the end, left of it.
    pub(super) fn label(&mut self, class: &str, at: f64, line: f64, text: &str) {
        let x = self.x_at(at);
        let width = 11.0 * text.chars().count() as f64;
        let fits = x + width < WIDTH - RIGHT || x - width < LEFT;
        let (x, anchor) = if fits { (x + 5.0, "start") } else { (x - 5.0, "end") };
        self.put(class, x, self.top + 18.0 + 20.0 * line, anchor, text);
    }

    /// A number just above the axis below, at a value.
    pub(super) fn number(&mut self, at: f64, text: &str) {
        self.put("note", self.x_at(at) + 4.0, self.bottom - 6.0, "start", text);
    }

    /// Bars below the field, as high as their part of the largest.
    pub(super) fn lane(&mut self, name: &str, bars: &[(f64, f64, f64)]) {
        let floor = self.height - BOTTOM;
        let largest = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);
        let mut path = String::new();
        for (from, until, value) in bars.iter().filter(|bar| bar.2 > 0.0) {
            // High enough to be seen, however few.
            let height = (value / largest * STRIP).max(3.0);
            let (left, right) = (self.x_at(*from), self.x_at(*until));
            path.push_str(&format!("M{left:.1} {floor}H{right:.1}v-{height:.1}H{left:.1}z"));
        }
        self.cells("errors", &path);
        self.put("tick", LEFT - 8.0, floor - 4.0, "end", name);
        let right = WIDTH - RIGHT;
        let line =
            format!("<line class=\"base\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{floor}\" y2=\"{floor}\"/>");
        self.body.push_str(&line);
    }

    /// Columns over the field that show a text when they are pointed at.
    pub(super) fn columns(&mut self, columns: impl Iterator<Item = (f64, f64, String)>) {
        for (from, until, title) in columns {
            self.band("column", from, until, &title);
        }
    }

    fn put(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        self.body.push_str(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        ));
    }

    /// Lines and names of both axes.
    fn grid(&self) -> String {
        let mut grid = String::new();
        let (right, below) = (WIDTH - RIGHT, self.height - BOTTOM);
        for (value, name) in &self.y.ticks {
            let y = self.y_at(*value);
            grid.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 5.0,
                escape(name)
            ));
        }
        for (value, name) in &self.x.ticks {
            let x = self.x_at(*value);
            grid.push_str(&format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                self.top,
                self.bottom,
                below + 26.0,
                escape(name)
            ));
        }
        grid
    }

    /// The chart with all that stands around it.
    pub(super) fn figure(self, caption: &Caption<'_>) -> String {
        caption.figure(self.height, &format!("{}{}", self.grid(), self.body))
    }
}

impl Caption<'_> {
    /// A figure around the content of a view box of [`WIDTH`] and this height.
    pub(super) fn figure(&self, height: f64, svg: &str) -> String {
        let Caption { id, title, text, description, legend, tables } = self;
        let entry = |(mark, name): &(String, String)| format!("<li>{mark}{}</li>", escape(name));
        let legend: String = legend.iter().map(entry).collect();
        let legend = if legend.is_empty() { legend } else { format!("<ul class=\"legend\">{legend}</ul>") };
        format!(
            "<figure class=\"card\"><figcaption><h2>{}</h2><p>{}</p></figcaption>{legend}\
             <svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{svg}</svg>\
             <details><summary>Figures as a table</summary>{tables}</details></figure>\n",
            escape(title),
            escape(text),
            escape(title),
            escape(description),
        )
    }
}

/// A line of a legend: colour and dash of this number.
pub(super) fn line_key(number: usize) -> String {
    format!(
        "<svg class=\"key\" viewBox=\"0 0 34 12\" aria-hidden=\"true\">\
         <line class=\"line s{number}\" x1=\"0\" x2=\"34\" y1=\"6\" y2=\"6\"/></svg>"
    )
}

/// A fill of a legend.
pub(super) fn fill_key(class: &str) -> String {
    format!(
        "<svg class=\"key fill\" viewBox=\"0 0 16 12\" aria-hidden=\"true\">\
         <rect class=\"{class}\" width=\"16\" height=\"12\" rx=\"2\"/></svg>"
    )
}
