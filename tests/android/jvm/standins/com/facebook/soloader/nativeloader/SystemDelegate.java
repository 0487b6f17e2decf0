package com.facebook.soloader.nativeloader;

/** Stands in for the native loader's class of this name. */
public class SystemDelegate implements NativeLoaderDelegate {}
