import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** java -javaagent:opentelemetry-javaagent.jar Calls COUNT: requests to itself, each of which the agent makes spans of. */
public class Calls {
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < count; number++) {
            URI target = new URI("http", null, "127.0.0.1", server.getAddress().getPort(), "/call/" + number, null, null);
            client.send(HttpRequest.newBuilder(target).build(), HttpResponse.BodyHandlers.discarding());
        }
        server.stop(0);
        System.out.println("made " + count);
    }
}
