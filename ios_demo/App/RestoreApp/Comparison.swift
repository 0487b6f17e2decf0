import SwiftUI

/// Before on the left of the handle, after on its right; drag it.
struct Comparison: View {
  let before: CGImage
  let after: CGImage?
  @State private var share = 0.5

  var body: some View {
    GeometryReader { space in
      let size = fitted(in: space.size)
      ZStack(alignment: .leading) {
        picture(after ?? before, size)
        if after != nil {
          picture(before, size).mask(alignment: .leading) { Rectangle().frame(width: size.width * share) }
          Rectangle().fill(.white).frame(width: 2, height: size.height).offset(x: size.width * share - 1)
          Image(systemName: "arrow.left.and.right.circle.fill")
            .font(.title).foregroundStyle(.white).shadow(radius: 2)
            .offset(x: size.width * share - 14)
        }
      }
      .frame(width: size.width, height: size.height)
      .contentShape(Rectangle())
      .gesture(DragGesture(minimumDistance: 0).onChanged { share = min(1, max(0, $0.location.x / size.width)) })
      .frame(maxWidth: .infinity, maxHeight: .infinity)
    }
    .accessibilityElement()
    .accessibilityLabel(after == nil ? "The photo" : "Before and after")
    .accessibilityValue(after == nil ? "" : "\(Int(share * 100)) percent before")
    .accessibilityAdjustableAction { share = min(1, max(0, share + ($0 == .increment ? 0.1 : -0.1))) }
  }

  private func picture(_ image: CGImage, _ size: CGSize) -> some View {
    Image(decorative: image, scale: 1).resizable().frame(width: size.width, height: size.height)
  }

  private func fitted(in space: CGSize) -> CGSize {
    let scale = min(space.width / CGFloat(before.width), space.height / CGFloat(before.height))
    return CGSize(width: CGFloat(before.width) * scale, height: CGFloat(before.height) * scale)
  }
}
