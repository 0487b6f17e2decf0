import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

// Android 8 knows Java 8's library and little more.
kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        freeCompilerArgs.addAll("-Xjdk-release=1.8", "-Wextra")
        allWarningsAsErrors = true
    }
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

dependencies {
    api(libs.kotlinx.coroutines.core)
    implementation(libs.gson)
    testImplementation(libs.junit)
}

tasks.test {
    val cases = rootDir.resolve("../tests/conformance")
    inputs.dir(cases)
    systemProperty("burnish.conformance", cases.path)
}
