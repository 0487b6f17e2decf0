import Foundation

/// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly.
public enum Quality {
  /// PSNR in dB that a quality stands for.
  public static func psnr(_ quality: Double) -> Double { 10 + 40 * quality }

  /// Mean squared error, of pixels in [0, 1], that a quality stands for.
  public static func error(_ quality: Double) -> Double { pow(10, -psnr(quality) / 10) }

  /// Predicted quality when `other` joins `one`, the mean of `count` restorations; from theirs and their mean squared difference.
  public static func ofMean(_ one: Double, count: Int, joinedBy other: Double, difference: Double) -> Double {
    let (mine, others, count) = (error(one), error(other), Double(count))
    let (share, apart) = (1 / (count + 1), min(difference, mine + others))
    return of(error: share * (count * mine + others) - share * share * count * apart)
  }

  /// The quality of a mean squared error above 0; may leave [0, 1].
  public static func of(error: Double) -> Double { (-10 * log10(error) - 10) / 40 }
}
