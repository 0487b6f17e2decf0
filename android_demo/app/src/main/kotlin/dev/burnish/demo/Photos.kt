package dev.burnish.demo

import android.content.ContentResolver
import android.content.ContentValues
import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.Matrix
import android.net.Uri
import android.os.Build
import android.os.Environment
import android.provider.MediaStore
import androidx.exifinterface.media.ExifInterface
import dev.burnish.core.InputException
import dev.burnish.core.Pixels
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale

/**
 * A photo as it was opened: upright, sRGB.
 *
 * @param fullWidth of the file, upright; larger than the bitmap's where memory did not hold more
 * @param metadata EXIF tags to be saved again
 */
class Photo(val bitmap: Bitmap, val fullWidth: Int, val fullHeight: Int, val metadata: Map<String, String>)

/** Reads a photo with at most [maxPixels] pixels. Throws what [Problem.of] explains. */
fun readPhoto(resolver: ContentResolver, uri: Uri, maxPixels: Int): Photo {
    val exif = resolver.openStream(uri).use { ExifInterface(it) }
    val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    resolver.openStream(uri).use { BitmapFactory.decodeStream(it, null, bounds) }
    if (bounds.outWidth <= 0 || bounds.outHeight <= 0) throw InputException("this file is no picture that Android can read")
    val options = BitmapFactory.Options().apply {
        inPreferredConfig = Bitmap.Config.ARGB_8888
        inPreferredColorSpace = ColorSpace.get(ColorSpace.Named.SRGB)
        inSampleSize = 1
        while (bounds.outWidth.toLong() * bounds.outHeight / inSampleSize / inSampleSize > maxPixels) inSampleSize *= 2
    }
    val stored = resolver.openStream(uri).use { BitmapFactory.decodeStream(it, null, options) }
        ?: throw InputException("this picture is damaged")
    // A copy would have it too and be saved with the highlights of the picture as it was.
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) stored.gainmap = null
    val upright = turned(stored, exif)
    val isTurned = exif.rotationDegrees % 180 != 0
    // Android blanks the place in what its photo picker hands over: the tags are there, and zero.
    val kept = if (exif.latLong == null) KEPT.filterNot { it.startsWith("GPS") } else KEPT
    return Photo(
        bitmap = upright,
        fullWidth = if (isTurned) bounds.outHeight else bounds.outWidth,
        fullHeight = if (isTurned) bounds.outWidth else bounds.outHeight,
        metadata = kept.mapNotNull { tag -> exif.getAttribute(tag)?.let { tag to it } }.toMap(),
    )
}

private fun ContentResolver.openStream(uri: Uri) = openInputStream(uri) ?: throw FileNotFoundException(uri.toString())

private fun turned(bitmap: Bitmap, exif: ExifInterface): Bitmap {
    if (exif.rotationDegrees == 0 && !exif.isFlipped) return bitmap
    val matrix = Matrix()
    if (exif.isFlipped) matrix.postScale(-1f, 1f)
    matrix.postRotate(exif.rotationDegrees.toFloat())
    return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, matrix, true).also { bitmap.recycle() }
}

/** A bitmap's colours, row by row so that no third copy is needed; transparency is left behind. */
fun pixelsOf(bitmap: Bitmap): Pixels {
    val pixels = Pixels(bitmap.height, bitmap.width)
    val row = IntArray(bitmap.width)
    var at = 0
    for (y in 0 until bitmap.height) {
        bitmap.getPixels(row, 0, bitmap.width, 0, y, bitmap.width, 1)
        for (colour in row) {
            pixels.data[at++] = (colour shr 16).toByte()
            pixels.data[at++] = (colour shr 8).toByte()
            pixels.data[at++] = colour.toByte()
        }
    }
    return pixels
}

/** Draw pixels into a mutable bitmap, their top left at ([top], [left]). */
fun draw(pixels: Pixels, bitmap: Bitmap, top: Int, left: Int) {
    val row = IntArray(pixels.width)
    for (y in 0 until pixels.height) {
        var at = pixels.offset + y * pixels.stride
        for (x in row.indices) {
            val red = pixels.data[at++].toInt() and 0xff
            val green = pixels.data[at++].toInt() and 0xff
            val blue = pixels.data[at++].toInt() and 0xff
            row[x] = (0xff shl 24) or (red shl 16) or (green shl 8) or blue
        }
        bitmap.setPixels(row, 0, pixels.width, left, top + y, pixels.width, 1)
    }
}

/** Save a JPEG with the photo's metadata to the gallery; the name it got. Throws what [Problem.of] explains. */
fun savePhoto(context: Context, bitmap: Bitmap, metadata: Map<String, String>): String {
    val name = "burnish-${SimpleDateFormat("yyyyMMdd-HHmmss", Locale.ROOT).format(Date())}.jpg"
    val file = File.createTempFile("saving", ".jpg", context.cacheDir)
    try {
        file.outputStream().use { stream ->
            if (!bitmap.compress(Bitmap.CompressFormat.JPEG, JPEG_QUALITY, stream)) throw IOException("no room for $name")
        }
        ExifInterface(file).run {
            metadata.forEach(::setAttribute)
            // The pixels are upright now.
            setAttribute(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL.toString())
            setAttribute(ExifInterface.TAG_SOFTWARE, "burnish")
            saveAttributes()
        }
        publish(context, file, name)
    } finally {
        file.delete()
    }
    return name
}

@Suppress("DEPRECATION") // Of Android 10, for the versions before it.
private fun publish(context: Context, file: File, name: String) {
    val resolver = context.contentResolver
    val values = ContentValues().apply {
        put(MediaStore.Images.Media.DISPLAY_NAME, name)
        put(MediaStore.Images.Media.MIME_TYPE, "image/jpeg")
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            put(MediaStore.Images.Media.RELATIVE_PATH, "${Environment.DIRECTORY_PICTURES}/burnish")
            put(MediaStore.Images.Media.IS_PENDING, 1)
        } else {
            val folder = File(Environment.getExternalStoragePublicDirectory(Environment.DIRECTORY_PICTURES), "burnish")
            folder.mkdirs()
            put(MediaStore.Images.Media.DATA, File(folder, name).path)
        }
    }
    val uri = resolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, values)
        ?: throw IOException("the gallery does not take $name")
    try {
        val stream = resolver.openOutputStream(uri) ?: throw IOException("the gallery does not open $name")
        stream.use { to -> file.inputStream().use { it.copyTo(to) } }
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            resolver.update(uri, ContentValues().apply { put(MediaStore.Images.Media.IS_PENDING, 0) }, null, null)
        }
    } catch (error: Exception) {
        // Nothing half-written stays in the gallery.
        resolver.delete(uri, null, null)
        throw error
    }
}

private const val JPEG_QUALITY = 95

// Who, when, where and with what; not what describes the pixels of the file that was opened.
private val KEPT = listOf(
    ExifInterface.TAG_ARTIST,
    ExifInterface.TAG_COPYRIGHT,
    ExifInterface.TAG_DATETIME,
    ExifInterface.TAG_DATETIME_DIGITIZED,
    ExifInterface.TAG_DATETIME_ORIGINAL,
    ExifInterface.TAG_OFFSET_TIME_ORIGINAL,
    ExifInterface.TAG_SUBSEC_TIME_ORIGINAL,
    ExifInterface.TAG_EXPOSURE_BIAS_VALUE,
    ExifInterface.TAG_EXPOSURE_TIME,
    ExifInterface.TAG_FLASH,
    ExifInterface.TAG_FOCAL_LENGTH,
    ExifInterface.TAG_FOCAL_LENGTH_IN_35MM_FILM,
    ExifInterface.TAG_F_NUMBER,
    ExifInterface.TAG_GPS_ALTITUDE,
    ExifInterface.TAG_GPS_ALTITUDE_REF,
    ExifInterface.TAG_GPS_DATESTAMP,
    ExifInterface.TAG_GPS_LATITUDE,
    ExifInterface.TAG_GPS_LATITUDE_REF,
    ExifInterface.TAG_GPS_LONGITUDE,
    ExifInterface.TAG_GPS_LONGITUDE_REF,
    ExifInterface.TAG_GPS_TIMESTAMP,
    ExifInterface.TAG_IMAGE_DESCRIPTION,
    ExifInterface.TAG_LENS_MAKE,
    ExifInterface.TAG_LENS_MODEL,
    ExifInterface.TAG_MAKE,
    ExifInterface.TAG_MODEL,
    ExifInterface.TAG_PHOTOGRAPHIC_SENSITIVITY,
    ExifInterface.TAG_WHITE_BALANCE,
)
