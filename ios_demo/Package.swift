// swift-tools-version: 6.0
import PackageDescription

let package = Package(
  name: "Restore",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "RestoreCore", targets: ["RestoreCore"]),
    .library(name: "RestoreCoreML", targets: ["RestoreCoreML"]),
  ],
  targets: [
    .target(name: "RestoreCore"),
    .target(name: "RestoreCoreML", dependencies: ["RestoreCore"]),
    .executableTarget(name: "restore-check", dependencies: ["RestoreCore"], path: "Tests/restore-check"),
    .testTarget(name: "RestoreCoreTests", dependencies: ["RestoreCore"]),
  ],
  swiftLanguageModes: [.v6]
)
