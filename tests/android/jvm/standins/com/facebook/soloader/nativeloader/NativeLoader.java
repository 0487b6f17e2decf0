package com.facebook.soloader.nativeloader;

/** Stands in for the native loader: instead of the Android library it loads the shim over ExecuTorch's desktop SDK. */
public class NativeLoader {
  private static boolean initialized;

  public static boolean isInitialized() {
    return initialized;
  }

  public static void init(NativeLoaderDelegate delegate) {
    initialized = true;
  }

  public static boolean loadLibrary(String name) {
    System.load(System.getProperty("burnish.shim"));
    return true;
  }
}
