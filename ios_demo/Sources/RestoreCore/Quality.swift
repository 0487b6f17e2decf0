import Foundation

/// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly.
public enum Quality {
  /// PSNR in dB that a quality stands for.
  public static func psnr(_ quality: Double) -> Double { 10 + 40 * quality }

  /// Mean squared error, of pixels in [0, 1], that a quality stands for.
  public static func error(_ quality: Double) -> Double { pow(10, -psnr(quality) / 10) }

  /// Predicted quality of the mean of two restorations, from theirs and their mean squared difference.
  public static func ofMean(_ one: Double, _ other: Double, difference: Double) -> Double {
    let both = error(one) + error(other)
    return of(error: both / 2 - min(difference, both) / 4)
  }

  /// The quality of a mean squared error above 0; may leave [0, 1].
  public static func of(error: Double) -> Double { (-10 * log10(error) - 10) / 40 }
}
