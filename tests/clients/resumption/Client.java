// Three requests by Java's own HTTPS (JSSE), each on a connection of its own, in one SSLContext.
//
// Usage: java Client.java URL CA KEYSTORE, the latter in PKCS #12 with the password "password".
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URL;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

class Client {
    public static void main(String[] arguments) throws Exception {
        char[] password = "password".toCharArray();
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream file = new FileInputStream(arguments[1])) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        KeyStore own = KeyStore.getInstance("PKCS12");
        try (InputStream file = new FileInputStream(arguments[2])) {
            own.load(file, password);
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(own, password);
        SSLContext context = SSLContext.getInstance("TLSv1.3");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        SSLSocketFactory sockets = context.getSocketFactory();
        for (int number = 0; number < 3; number++) {
            HttpsURLConnection connection = (HttpsURLConnection) new URL(arguments[0]).openConnection();
            connection.setSSLSocketFactory(sockets);
            if (connection.getResponseCode() != 200) {
                System.exit(1);
            }
            connection.getInputStream().readAllBytes();
        }
    }
}
