//! Student's distribution.

/// Steps of the integral: with so many the bound is exact to four digits from 2 to 10,000 degrees of freedom.
const STEPS: u32 = 4_000;

/// How many standard errors to either side hold a share `confidence` of the distribution.
///
/// With t = sqrt(freedom) tan(angle), the density becomes a power of the cosine: a smooth integral over a quarter
/// turn. That is summed up to the share that is asked for. `freedom` is at least 2.
pub(super) fn bound(confidence: f64, freedom: f64) -> f64 {
    let step = std::f64::consts::FRAC_PI_2 / f64::from(STEPS);
    let density = |number: u32| ((f64::from(number) + 0.5) * step).cos().powf(freedom - 1.0);
    let asked = confidence * (0..STEPS).map(density).sum::<f64>();
    let (mut sum, mut angle) = (0.0, 0.0);
    for number in 0..STEPS {
        let part = density(number);
        if sum + part >= asked {
            angle += step * (asked - sum) / part;
            break;
        }
        sum += part;
        angle += step;
    }
    freedom.sqrt() * angle.tan()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        let tables = [
            (0.90, 2.0, 2.920),
            (0.99, 2.0, 9.925),
            (0.95, 5.0, 2.571),
            (0.99, 10.0, 3.169),
            (0.999, 10.0, 4.587),
            (0.99, 30.0, 2.750),
            (0.95, 120.0, 1.980),
            (0.99, 10_000.0, 2.576),
        ];
        for (confidence, freedom, expected) in tables {
            let got = bound(confidence, freedom);
            assert!((got - expected).abs() < 0.001, "{confidence}, {freedom}: {got}, expected {expected}");
        }
    }
}
