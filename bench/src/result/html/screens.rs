//! The page in a browser: what is seen on a desk, on a phone, in the dark and on paper.
//!
//! Skipped aloud where there is no Chromium; with `HSMUX_CHROMIUM` it is taken from there. With `HSMUX_SCREENS` the
//! pictures are kept in that directory.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::ZlibDecoder;
use tempfile::TempDir;

use super::page;
use crate::result::{LoadResult, example};

const PHONE: [u32; 2] = [390, 844];
const DESK: [u32; 2] = [1280, 900];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Light,
    Dark,
}

/// Chromium, and a directory of its own for a page.
struct Browser {
    program: PathBuf,
    directory: TempDir,
}

/// A picture: three or four bytes a pixel.
struct Picture {
    width: usize,
    pixel: usize,
    rows: Vec<Vec<u8>>,
}

impl Browser {
    /// Chromium with these results as `page.html`; `None`, said aloud, where there is none.
    fn with(results: &[LoadResult]) -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: no Chromium was found; HSMUX_CHROMIUM may name one");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("page.html"), page(results)).unwrap();
        Some(Self { program, directory })
    }

    fn run(&self, file: &str, [width, height]: [u32; 2], scheme: Scheme, more: &[String]) -> Vec<u8> {
        let profile = tempfile::tempdir().unwrap();
        let preferred = if scheme == Scheme::Dark { 0 } else { 1 };
        let output = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--allow-file-access-from-files", "--force-device-scale-factor=1"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--blink-settings=preferredColorScheme={preferred}"))
            .args(more)
            .arg(format!("file://{}", self.directory.path().join(file).display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn screenshot(&self, size: [u32; 2], scheme: Scheme, name: &str) -> Picture {
        let path = self.directory.path().join(format!("{name}.png"));
        self.run("page.html", size, scheme, &[format!("--screenshot={}", path.display())]);
        keep(&path);
        Picture::read(&std::fs::read(path).unwrap())
    }

    /// The page in frames of these sizes: how wide its content is, how high, and how far its elements reach.
    fn extents(&self, sizes: &[[u32; 2]]) -> Vec<[f64; 3]> {
        let frame = |[width, height]: &[u32; 2]| {
            format!("<iframe src=page.html style=\"border:0;width:{width}px;height:{height}px\"></iframe>")
        };
        let frames: String = sizes.iter().map(frame).collect();
        let wrapper = format!("<!doctype html><title>-</title>{frames}<script>{MEASURE}</script>");
        std::fs::write(self.directory.path().join("frames.html"), wrapper).unwrap();
        let dom = self.run("frames.html", DESK, Scheme::Light, &["--dump-dom".to_owned()]);
        let dom = String::from_utf8(dom).unwrap();
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap();
        let numbers: Vec<f64> = title.split(' ').map(|number| number.parse().expect(title)).collect();
        assert_eq!(numbers.len(), 3 * sizes.len());
        numbers.chunks(3).map(|three| three.try_into().unwrap()).collect()
    }
}

/// Puts three numbers for each frame into the title, once all are there.
const MEASURE: &str = "onload = () => { document.title = [...document.querySelectorAll('iframe')].map((frame) => { \
    const page = frame.contentDocument, root = page.documentElement; \
    const inside = (it) => it.closest('.scroll') === null && it.closest('svg') === null; \
    const all = [...page.querySelectorAll('body *')].filter(inside); \
    const right = Math.max(...all.map((it) => it.getBoundingClientRect().right)); \
    return [root.scrollWidth, root.scrollHeight, right].join(' '); }).join(' '); };";

/// The program: that of the variable, or the first of its usual names on the path.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("HSMUX_CHROMIUM") {
        return Some(named.into());
    }
    let paths = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&paths)
        .flat_map(|path| names.map(|name| path.join(name)))
        .find(|program| program.is_file())
}

fn keep(path: &Path) {
    if let (Some(directory), Some(name)) = (std::env::var_os("HSMUX_SCREENS"), path.file_name()) {
        std::fs::copy(path, PathBuf::from(directory).join(name)).unwrap();
    }
}

impl Picture {
    /// Reads a PNG of 8 bits a channel that is not interlaced, as Chromium writes them.
    fn read(file: &[u8]) -> Self {
        let (mut at, mut packed) = (8, Vec::new());
        let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        while at < file.len() {
            let (length, kind) = (number(at), &file[at + 4..at + 8]);
            if kind == b"IDAT" {
                packed.extend(&file[at + 8..at + 8 + length]);
            }
            at += 12 + length;
        }
        let (width, height, depth, kind) = (number(16), number(20), file[24], file[25]);
        assert_eq!(depth, 8);
        let pixel = if kind == 6 { 4 } else { 3 };
        let mut bytes = Vec::new();
        ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        let mut rows: Vec<Vec<u8>> = Vec::with_capacity(height);
        for line in bytes.chunks(1 + width * pixel) {
            let above = rows.last().cloned().unwrap_or_else(|| vec![0; width * pixel]);
            rows.push(unfiltered(line[0], &line[1..], &above, pixel));
        }
        assert_eq!(rows.len(), height);
        Self { width, pixel, rows }
    }

    fn brightness(&self, x: usize, y: usize) -> u32 {
        self.rows[y][x * self.pixel..][..3].iter().map(|channel| u32::from(*channel)).sum::<u32>() / 3
    }

    fn mean(&self) -> u32 {
        let rows = 0..self.rows.len();
        let sum: u64 = rows
            .clone()
            .flat_map(|y| (0..self.width).map(move |x| (x, y)))
            .map(|(x, y)| u64::from(self.brightness(x, y)))
            .sum();
        u32::try_from(sum / (self.width * rows.len()) as u64).unwrap()
    }

    /// How many of its rows are not of one colour.
    fn rows_with_content(&self) -> usize {
        self.rows.iter().filter(|row| row.chunks(self.pixel).any(|pixel| pixel != &row[..self.pixel])).count()
    }

    /// How many colours it has.
    fn colours(&self) -> usize {
        let mut colours: Vec<_> =
            self.rows.iter().flat_map(|row| row.chunks(self.pixel)).map(|it| &it[..3]).collect();
        colours.sort_unstable();
        colours.dedup();
        colours.len()
    }
}

/// PNG specification, 9.2: each byte is told as the difference to what its neighbours predict.
fn unfiltered(filter: u8, line: &[u8], above: &[u8], pixel: usize) -> Vec<u8> {
    let mut row: Vec<u8> = Vec::with_capacity(line.len());
    for (place, byte) in line.iter().enumerate() {
        let before = place.checked_sub(pixel);
        let left = before.map_or(0, |place| row[place]);
        let corner = before.map_or(0, |place| above[place]);
        let predicted = match filter {
            0 => 0,
            1 => left,
            2 => above[place],
            3 => u8::midpoint(left, above[place]),
            4 => nearest(left, above[place], corner),
            other => panic!("filter {other}"),
        };
        row.push(byte.wrapping_add(predicted));
    }
    row
}

/// PNG specification, 9.4: whichever of the three is nearest to left + above - corner.
fn nearest(left: u8, above: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, above, corner].map(i16::from);
    let distance = |it: i16| (a + b - c - it).abs();
    match (distance(a), distance(b), distance(c)) {
        (a, b, c) if a <= b && a <= c => left,
        (_, b, c) if b <= c => above,
        _ => corner,
    }
}

fn one() -> Vec<LoadResult> {
    vec![example::payment_auth()]
}

fn two() -> Vec<LoadResult> {
    vec![example::payment_auth(), example::payment_auth_tuned()]
}

#[test]
fn the_page_is_drawn_on_a_desk_and_a_phone_in_light_and_dark() {
    for (results, name) in [(one(), "one"), (two(), "two")] {
        let Some(browser) = Browser::with(&results) else { return };
        for (size, place) in [(DESK, "desk"), (PHONE, "phone")] {
            let [light, dark] = [(Scheme::Light, "light"), (Scheme::Dark, "dark")]
                .map(|(scheme, shade)| browser.screenshot(size, scheme, &format!("{name}-{place}-{shade}")));
            for picture in [&light, &dark] {
                assert!(picture.rows_with_content() * 2 > picture.rows.len(), "{name} {place} is blank");
                assert!(picture.colours() > 50, "{name} {place}: {} colours", picture.colours());
            }
            assert!(
                light.mean() > 200 && dark.mean() < 80,
                "{name} {place}: {} {}",
                light.mean(),
                dark.mean()
            );
        }
    }
}

#[test]
fn nothing_reaches_past_the_side_of_a_phone_or_a_desk() {
    let mut long = one();
    for name in &mut long[0].notes {
        *name = "x".repeat(400);
    }
    long[0].made.command = "--option=".repeat(60);
    long[0].tokens[0].token = "W".repeat(32);
    long[0].errors[0].first = "y".repeat(300);
    for (results, name) in
        [(one(), "one"), (two(), "two"), (long, "long"), ([two(), two(), two()].concat(), "six")]
    {
        let Some(browser) = Browser::with(&results) else { return };
        let sizes = [[320, 640], PHONE, [700, 900], DESK];
        for (size, [width, height, right]) in sizes.into_iter().zip(browser.extents(&sizes)) {
            assert!(
                width <= f64::from(size[0]) && right <= f64::from(size[0]) + 0.5,
                "{name} {size:?}: {width} {right}"
            );
            assert!(height > 2_000.0, "{name} {size:?}: {height}");
        }
    }
}

#[test]
fn paper_has_the_whole_page() {
    let Some(browser) = Browser::with(&one()) else { return };
    let path = browser.directory.path().join("page.pdf");
    let print = [format!("--print-to-pdf={}", path.display()), "--no-pdf-header-footer".to_owned()];
    browser.run("page.html", DESK, Scheme::Dark, &print);
    keep(&path);
    let pdf = std::fs::read(&path).unwrap();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 20_000, "{} bytes", pdf.len());
    let pages = String::from_utf8_lossy(&pdf).matches("/Type /Page\n").count();
    assert!((1..=6).contains(&pages), "{pages} pages");
}
