package com.facebook.soloader.nativeloader;

/** Stands in for the native loader's interface of this name. */
public interface NativeLoaderDelegate {}
