package com.facebook.jni;

/** Stands in for fbjni's class of this name, which holds a native object for a Java one. */
public class HybridData {
  private long pointer;

  public HybridData(long pointer) {
    this.pointer = pointer;
  }

  public boolean isValid() {
    return pointer != 0;
  }

  public native void resetNative();
}
