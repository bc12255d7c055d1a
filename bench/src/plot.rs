//! A series as a picture: SVG, drawn from the numbers alone, so that the same JSON gives the same file.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
/// Around the plot: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (76.0, 56.0, 24.0, 64.0);
const COLOURS: [&str; 4] = ["#1769aa", "#c2410c", "#15803d", "#7c3aed"];
const GREY: &str = "#64748b";

/// A picture.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Along the bottom, with its unit.
    pub x: String,
    /// Up the side, with its unit.
    pub y: String,
    /// Names along the bottom, evenly spaced.
    pub places: Vec<String>,
    /// One line each.
    pub curves: Vec<Curve>,
}

/// A line of a picture.
#[derive(Debug, Clone)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// One a place; `None` where nothing was measured.
    pub values: Vec<Option<f64>>,
}

/// A number as people read it: three digits that count.
#[must_use]
pub fn short(number: f64) -> String {
    let size = number.abs();
    match size {
        _ if size >= 1e6 => format!("{:.2}M", number / 1e6),
        _ if size >= 10_000.0 => format!("{:.1}k", number / 1e3),
        _ if size >= 1_000.0 => format!("{:.2}k", number / 1e3),
        _ if size >= 100.0 => format!("{number:.0}"),
        _ if size >= 10.0 => format!("{number:.1}"),
        _ if size == 0.0 => "0".to_owned(),
        _ => format!("{number:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The lowest of 1, 2, 5 times a power of ten that is not below `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= value * (1.0 - 1e-12));
    step.unwrap_or(10.0) * power
}

struct Text<'a> {
    at: (f64, f64),
    anchor: &'a str,
    size: u32,
    colour: &'a str,
}

fn text(svg: &mut String, style: &Text<'_>, words: &str) {
    let (
        (x, y),
        Text {
            anchor, size, colour, ..
        },
    ) = (style.at, style);
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{}</text>"#,
        escape(words)
    );
}

impl Plot {
    fn x_of(&self, place: usize) -> f64 {
        let width = WIDTH - MARGIN.0 - MARGIN.2;
        let last = self.places.len().saturating_sub(1).max(1) as f64;
        MARGIN.0 + 20.0 + (width - 40.0) * place as f64 / last
    }

    /// The picture. Its y axis begins at zero: what is flat looks flat, and what is not does not look worse.
    #[must_use]
    pub fn svg(&self) -> String {
        let values = || self.curves.iter().flat_map(|curve| curve.values.iter().flatten());
        let step = round_up(values().copied().fold(0.0, f64::max) * 1.05 / 5.0);
        let top = step * 5.0;
        let bottom = HEIGHT - MARGIN.3;
        let y_of = |value: f64| bottom - (bottom - MARGIN.1) * value / top;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" role=\"img\" \
             aria-label=\"{}\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
            escape(&self.title).replace('"', "&quot;")
        );
        let label = |at, anchor| Text {
            at,
            anchor,
            size: 12,
            colour: GREY,
        };
        let heading = Text {
            at: (MARGIN.0, 22.0),
            anchor: "start",
            size: 15,
            colour: "#0f172a",
        };
        text(&mut svg, &heading, &self.title);
        for line in 0..=5 {
            let (value, y) = (step * f64::from(line), y_of(step * f64::from(line)));
            let _ = writeln!(
                svg,
                r##"<line x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#e2e8f0"/>"##,
                MARGIN.0,
                WIDTH - MARGIN.2
            );
            text(&mut svg, &label((MARGIN.0 - 8.0, y + 4.0), "end"), &short(value));
        }
        for (place, name) in self.places.iter().enumerate() {
            text(&mut svg, &label((self.x_of(place), bottom + 18.0), "middle"), name);
        }
        let middle = (MARGIN.0 + WIDTH - MARGIN.2) / 2.0;
        text(&mut svg, &label((middle, HEIGHT - 18.0), "middle"), &self.x);
        let _ = writeln!(
            svg,
            r#"<text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle" font-size="12" fill="{GREY}">{}</text>"#,
            (MARGIN.1 + bottom) / 2.0,
            escape(&self.y)
        );
        for (index, curve) in self.curves.iter().enumerate() {
            self.curve(&mut svg, curve, index, y_of);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn curve(&self, svg: &mut String, curve: &Curve, index: usize, y_of: impl Fn(f64) -> f64) {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<(f64, f64, f64)> = curve
            .values
            .iter()
            .enumerate()
            .filter_map(|(place, value)| value.map(|value| (self.x_of(place), y_of(value), value)))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
        for (x, y, value) in points {
            let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#);
            let value_at = Text {
                at: (x, y - 9.0),
                anchor: "middle",
                size: 11,
                colour,
            };
            text(svg, &value_at, &short(value));
        }
        let legend = Text {
            at: (MARGIN.0 + 220.0 * index as f64, 42.0),
            anchor: "start",
            size: 12,
            colour,
        };
        text(svg, &legend, &format!("● {}", curve.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_each_point_at_its_place_and_begins_at_zero() {
        let plot = Plot {
            title: "A & B".to_owned(),
            x: "lanes".to_owned(),
            y: "us".to_owned(),
            places: ["1", "2", "4"].map(str::to_owned).into(),
            curves: vec![Curve {
                name: "cost".to_owned(),
                values: vec![Some(0.0), None, Some(50.0)],
            }],
        };
        let svg = plot.svg();
        assert!(svg.contains("A &amp; B") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 2, "what was not measured has no point");
        let zero = HEIGHT - MARGIN.3;
        assert!(svg.contains(&format!(r#"cy="{zero:.1}""#)), "zero is at the bottom");
        assert_eq!(svg, plot.svg());
        assert_eq!(
            [short(1_234_567.0), short(12_345.0), short(1_234.0), short(0.123)],
            ["1.23M", "12.3k", "1.23k", "0.12"]
        );
        assert_eq!(
            [round_up(0.011), round_up(3.0), round_up(5.0), round_up(501.0)],
            [0.02, 5.0, 5.0, 1_000.0]
        );
    }
}
