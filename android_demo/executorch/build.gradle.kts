plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "dev.burnish.executorch"
    compileSdk = libs.versions.compile.sdk.get().toInt()
    defaultConfig {
        minSdk = libs.versions.min.sdk.get().toInt()
        consumerProguardFiles("consumer-rules.pro")
    }
}

kotlin {
    compilerOptions {
        freeCompilerArgs.add("-Wextra")
        allWarningsAsErrors = true
    }
}

dependencies {
    api(project(":core"))
    implementation(libs.executorch.android)
}
